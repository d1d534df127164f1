"""The table of commands: parsing, help texts and the reference page all come from it.

A stage is named as ``module:function`` and imported only when it runs: start-up is a feature.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option. ``argument`` is the keyword of the stage's function; ``kind`` decides how the text is read.

    Kinds: ``flag`` (present or not), ``switch`` (``--x`` / ``--no-x``), ``text``, ``duration`` (seconds for the function),
    ``path``, ``number``, ``pairs`` (repeatable ``KEY=VALUE``), ``texts`` (repeatable).
    """

    flags: tuple[str, ...]
    argument: str
    kind: str
    help: str
    metavar: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command: its name (two words for a group), what it does, the function behind it, and what it takes.

    ``reports``: it writes its own report; ``recorded``: what it found is kept for `trainshed report`; ``guarded``: it works on the
    environment, so that a run which is trusted less than the environment asks is refused.
    """

    name: str
    help: str
    function: str
    names: str = ""
    options: tuple[Option, ...] = ()
    project: bool = True
    reports: bool = False
    recorded: bool = False
    guarded: bool = True

    @property
    def stage(self) -> str:
        """Return what its reports are called."""
        return self.name.replace(" ", "-")


DEADLINE = Option(flags=("--deadline",), argument="deadline", kind="duration", metavar="20m", help="give up after this time")
DRY_RUN = Option(flags=("--dry-run",), argument="dry_run", kind="flag", help="show the difference, change nothing")
FAIL_FAST = Option(flags=("--fail-fast",), argument="fail_fast", kind="flag", help="stop all work at the first failure")
WAIT = Option(flags=("--wait",), argument="wait", kind="switch", help="follow it to its end")
PARAMETERS = (
    Option(
        flags=("-p", "--param"), argument="parameters", kind="pairs", metavar="KEY=VALUE", help="a parameter of the pipeline; repeatable"
    ),
    Option(flags=("--params",), argument="params_file", kind="path", metavar="FILE", help="parameters as YAML or JSON"),
    Option(
        flags=("--profile",),
        argument="profile",
        kind="text",
        metavar="NAME",
        help="a set of parameters and gates from the TOML file beside the pipeline; -p and --params win over it",
    ),
    Option(
        flags=("--gate",),
        argument="gates",
        kind="texts",
        metavar="EXPR",
        help="fail unless a metric holds, such as 'auc >= 0.80' or 'auc >= best - 0.01'; repeatable",
    ),
)
BUILD = (
    Option(flags=("--branch",), argument="branch", kind="text", metavar="NAME", help="the job's branch; the one checked out by default"),
    Option(flags=("--build",), argument="build", kind="text", metavar="BUILD", help="number or address of the build; the last by default"),
)

BUMP = Option(
    flags=("--bump",),
    argument="bump",
    kind="text",
    choices=("auto", "patch", "minor", "major"),
    help="what the version grows by; auto, the default: what the commits since the last release ask for",
)

COMMANDS: tuple[Command, ...] = (
    Command(
        name="plan",
        help="show what would be built, scanned and tested, and why",
        function="trainshed.stages.plan:plan",
        names="component",
        options=(
            Option(
                flags=("--branches",),
                argument="branches",
                kind="flag",
                help="print the components that need work, a line for each wave, bases first: for a driver that fans out",
            ),
            Option(
                flags=("--distributed",),
                argument="distributed",
                kind="flag",
                help="refuse what several machines cannot share: an embedded registry, a ledger in a file",
            ),
        ),
        recorded=True,
    ),
    Command(
        name="build",
        help="build and push the images that changed",
        function="trainshed.stages.images:build",
        names="component",
        options=(FAIL_FAST,),
        reports=True,
        recorded=True,
    ),
    Command(
        name="scan",
        help="scan the images that lack a verdict",
        function="trainshed.stages.images:scan",
        names="component",
        options=(FAIL_FAST,),
        reports=True,
        recorded=True,
    ),
    Command(
        name="test",
        help="test the images that lack a verdict, inside themselves",
        function="trainshed.stages.images:test",
        names="component",
        options=(FAIL_FAST,),
        reports=True,
        recorded=True,
    ),
    Command(
        name="images",
        help="build, scan and test in parallel, without barriers; write the lock when all is green",
        function="trainshed.stages.images:images",
        names="component",
        options=(
            FAIL_FAST,
            Option(
                flags=("--alone",),
                argument="alone",
                kind="flag",
                help="make the named components only: no bases, no lock; for one branch of many",
            ),
        ),
        reports=True,
        recorded=True,
    ),
    Command(
        name="stamp",
        help="write the lock's digests into the compiled pipelines",
        function="trainshed.stages.stamp:stamp",
        names="pipeline",
        recorded=True,
    ),
    Command(
        name="verify",
        help="prove that the stamped pipelines hold only images of the lock",
        function="trainshed.stages.verify:verify",
        names="pipeline",
        recorded=True,
    ),
    Command(
        name="upload",
        help="upload the stamped pipelines to Kubeflow; the same content is uploaded once",
        function="trainshed.stages.upload:upload",
        names="pipeline",
        options=(DRY_RUN, DEADLINE),
        recorded=True,
    ),
    Command(
        name="launch",
        help="start a training run of uploaded pipelines",
        function="trainshed.stages.launch:launch",
        names="pipeline",
        options=(
            *PARAMETERS,
            Option(
                flags=("--local-images",),
                argument="local_images",
                kind="flag",
                help="run what was built and uploaded from this tree, not what CI uploaded for this commit or branch",
            ),
            Option(
                flags=("--cache",),
                argument="caching",
                kind="switch",
                help="take steps from the cache, or run them all; as the pipeline says by default",
            ),
            Option(flags=("--experiment",), argument="experiment", kind="text", metavar="NAME", help="the run's experiment"),
            Option(flags=("--label",), argument="labels", kind="pairs", metavar="KEY=VALUE", help="a label of the run; repeatable"),
            Option(
                flags=("--resume",),
                argument="resume",
                kind="text",
                metavar="RUN",
                help="follow a run that was started before, and judge it by its gates; nothing is started",
            ),
            WAIT,
            DEADLINE,
        ),
        reports=True,
        recorded=True,
    ),
    Command(
        name="schedule",
        help="bring Kubeflow's recurring runs to what is declared beside the pipelines",
        function="trainshed.stages.schedule:schedule",
        names="pipeline",
        options=(DRY_RUN, DEADLINE),
        recorded=True,
    ),
    Command(
        name="deploy",
        help="deploy services to the Prediction Service and follow the rollout",
        function="trainshed.stages.deploy:deploy",
        names="service",
        options=(
            Option(
                flags=("--from-run",),
                argument="from_run",
                kind="text",
                metavar="RUN",
                help="take the model of this run; of the last one that passed its gates by default",
            ),
            DRY_RUN,
            WAIT,
            DEADLINE,
        ),
        recorded=True,
    ),
    Command(
        name="rollback",
        help="bring services back to the revision that served well before: image and model as the pair that they were",
        function="trainshed.stages.rollback:rollback",
        names="service",
        options=(
            Option(
                flags=("--to",), argument="to", kind="text", metavar="REVISION", help="the revision to go back to, such as predictor:17"
            ),
            Option(
                flags=("--release",),
                argument="release",
                kind="text",
                metavar="VERSION",
                help="go back to what a release deployed, by its version or the file of its manifest",
            ),
            DRY_RUN,
            WAIT,
            DEADLINE,
        ),
        recorded=True,
    ),
    Command(
        name="status",
        help="compare what the ledger believes with what registry, Kubeflow and the Prediction Service say; show drift",
        function="trainshed.stages.status:status",
        names="pipeline or service",
        guarded=False,
    ),
    Command(
        name="version",
        help="tell the version that the next release will have",
        function="trainshed.stages.version:version",
        names="pipeline or service",
        guarded=False,
        options=(Option(flags=("--why",), argument="why", kind="flag", help="show which commits ask for which growth"), BUMP),
    ),
    Command(
        name="release",
        help="bring the green main build to production: the same digests, all or nothing; finish or undo what a killed release left",
        function="trainshed.stages.release:release",
        names="pipeline or service",
        options=(
            Option(flags=("--to",), argument="to", kind="text", metavar="ENVIRONMENT", help="production; release.environment by default"),
            BUMP,
            Option(flags=("--undo",), argument="undo", kind="flag", help="undo a release that was begun and not ended, make none"),
            DRY_RUN,
            DEADLINE,
        ),
        recorded=True,
    ),
    Command(
        name="trace",
        help="follow a commit, digest, CVE, run, model, version, release or service both ways: what made it, what came of it",
        function="trainshed.stages.trace:trace",
        names="thing",
        guarded=False,
        options=(
            Option(
                flags=("--direction",),
                argument="direction",
                kind="text",
                choices=("both", "up", "down"),
                help="up: what made it; down: what came of it; both by default",
            ),
            Option(flags=("--picture",), argument="picture", kind="path", metavar="FILE.svg", help="draw it"),
            Option(flags=("--limit",), argument="limit", kind="number", metavar="N", help="show so many things at most; 200 by default"),
        ),
    ),
    Command(
        name="registry ensure",
        help="create the components' repositories in ECR, and bring them to what is promised of them",
        function="trainshed.stages.registry.ensure:ensure",
        names="component",
        options=(DRY_RUN,),
        recorded=True,
    ),
    Command(
        name="registry copy",
        help="copy the lock's images, by digest, to the registry of another environment",
        function="trainshed.stages.registry.copy:copy",
        names="component",
        options=(
            Option(flags=("--to",), argument="to", kind="text", metavar="ENVIRONMENT", help="the environment whose registry takes them"),
            DRY_RUN,
        ),
        recorded=True,
    ),
    Command(
        name="audit",
        help="check what the platform promises of buckets, repositories and roles; changes nothing",
        function="trainshed.stages.audit:audit",
        guarded=False,
        reports=True,
        recorded=True,
    ),
    Command(
        name="run",
        help="the pull-request flow: images, stamp, verify, upload; launch and deploy when asked",
        function="trainshed.stages.run:run",
        names="pipeline or service",
        options=(
            Option(flags=("--launch",), argument="launch", kind="flag", help="start training runs of the uploaded pipelines"),
            Option(flags=("--deploy",), argument="deploy", kind="flag", help="deploy the services"),
            *PARAMETERS,
            WAIT,
            FAIL_FAST,
            DEADLINE,
        ),
        reports=True,
        recorded=True,
    ),
    Command(
        name="report",
        help="join what the stages of this build recorded into one report and a manifest; print a description of the build",
        function="trainshed.stages.report:report",
        guarded=False,
    ),
    Command(
        name="jenkins trigger",
        help="start a build of a branch; parameters are checked against the job's own definitions",
        function="trainshed.stages.jenkins.trigger:trigger",
        guarded=False,
        options=(
            BUILD[0],
            Option(
                flags=("-p", "--param"), argument="parameters", kind="pairs", metavar="KEY=VALUE", help="a parameter of the job; repeatable"
            ),
            WAIT,
            DEADLINE,
        ),
    ),
    Command(
        name="jenkins watch",
        help="follow a build: stages, branches, and the log of what fails",
        function="trainshed.stages.jenkins.watch:watch",
        guarded=False,
        options=(
            *BUILD,
            Option(flags=("--queue",), argument="queue", kind="number", metavar="ID", help="the build that came of this item of the queue"),
            DEADLINE,
        ),
    ),
    Command(
        name="jenkins lock",
        help="fetch the lock of the last green build of a commit or branch; that of this checkout by default",
        function="trainshed.stages.jenkins.lock:lock",
        guarded=False,
        options=(
            Option(flags=("--commit",), argument="commit", kind="text", metavar="SHA", help="the commit that was built"),
            BUILD[0],
            DRY_RUN,
        ),
    ),
    Command(
        name="jenkins reproduce",
        help="set up the commit, parameters and lock of a build in a folder of its own, and compare the plans",
        function="trainshed.stages.jenkins.reproduce:reproduce",
        guarded=False,
        options=BUILD,
    ),
    Command(
        name="jenkins bindings",
        help="print what Jenkins shall bind for the environment, a line each: KIND VARIABLE ID",
        function="trainshed.stages.jenkins.bindings:bindings",
        options=(
            Option(flags=("--release",), argument="release", kind="flag", help="for a release: with what production asks for as well"),
        ),
    ),
    Command(
        name="login",
        help="tell who you are for the environment's Kubeflow, and until when",
        function="trainshed.stages.login:login",
    ),
    Command(
        name="doctor",
        help="check every tool, permission, version and the disk space that the environment needs",
        function="trainshed.stages.doctor:doctor",
        guarded=False,
    ),
    Command(
        name="config",
        help="print the effective configuration and where each value comes from",
        function="trainshed.stages.config:config",
        guarded=False,
    ),
    Command(name="local up", help="start the embedded services", function="trainshed.stages.local:up", guarded=False),
    Command(
        name="local status", help="tell which embedded services run, and where", function="trainshed.stages.local:status", guarded=False
    ),
    Command(
        name="local logs",
        help="print the log of an embedded service",
        function="trainshed.stages.local:logs",
        names="embedded service",
        guarded=False,
    ),
    Command(
        name="local down", help="stop the embedded services; what they hold stays", function="trainshed.stages.local:down", guarded=False
    ),
    Command(
        name="init",
        help="scaffold a repository, or add a component to one",
        function="trainshed.stages.init:init",
        guarded=False,
        project=False,
        options=(
            Option(flags=("--component",), argument="component", kind="text", metavar="NAME", help="add a component of this name"),
            Option(
                flags=("--kind",),
                argument="kind",
                kind="text",
                choices=("base", "step", "service"),
                help="what the component is; a step by default",
            ),
        ),
    ),
)


def by_name(name: str) -> Command:
    """Return the command of a name; `KeyError` when there is none."""
    return {command.name: command for command in COMMANDS}[name]
