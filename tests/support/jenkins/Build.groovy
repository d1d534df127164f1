/** One build of one job: what the scenario says of it, and what has become of it. */
class Build {
    static final List<String> RESULTS = ['SUCCESS', 'UNSTABLE', 'FAILURE', 'NOT_BUILT', 'ABORTED']

    final Map scenario
    final Log log
    final Turn turn = new Turn()
    final Places places
    final Credentials credentials
    final Steps steps
    final Strand main = new Strand(null, null)
    final long began = System.currentTimeMillis()
    final Map<String, Map> definitions = [:]
    final Map<String, String> own = [:]
    final Set<String> secrets = [].asSynchronized() as Set
    String result
    String description
    private final Writer text

    Build(Map scenario, Log log) {
        this.scenario = scenario
        this.log = log
        text = new File("${scenario.home}/console.txt").newWriter('UTF-8')
        places = new Places(this)
        credentials = new Credentials(this)
        steps = new Steps(this)
    }

    Scm getScm() { new Scm(scenario.scm as Map) }

    String getCurrentResult() { result ?: 'SUCCESS' }

    /** A result only gets worse. */
    void setResult(String worse) {
        if (!(worse in RESULTS)) { throw new IllegalArgumentException("no result: ${worse}") }
        if (!result || RESULTS.indexOf(worse) > RESULTS.indexOf(result)) { result = worse }
    }

    boolean installed(String plugin) { !(plugin in scenario.missing_plugins) }

    synchronized void console(String lines) {
        text.write(masked(lines))
        text.write(lines.endsWith('\n') ? '' : '\n')
        text.flush()
    }

    String masked(Object given) { secrets.toList().sort { -it.length() }.inject(given as String) { String told, String secret -> told.replace(secret, '****') } }

    /** What `params` holds: what was given, else the default. A first build knows the definitions only by its own Jenkinsfile. */
    Map<String, Object> getParameters() {
        return definitions.collectEntries { name, definition -> [name, name in scenario.parameters ? scenario.parameters[name] : definition.defaultValue] }
    }

    /** The environment of what runs here: build, parameters (of a build that was started with some), what the script set, the blocks. */
    Map<String, String> variables() {
        Map<String, String> started = scenario.first_build ? [:] : parameters.collectEntries { name, value -> [name, value == null ? '' : value as String] }
        Map<String, String> stage = Strand.current()?.stage ? [STAGE_NAME: Strand.current().stage] : [:]
        return (scenario.environment as Map<String, String>) + started + own + stage + (Strand.current()?.variables ?: [:])
    }

    /** Stop the build from outside, as its abort button does. */
    void abort() {
        turn.take()
        try {
            log.event([:], 'abort')
            result = 'ABORTED'
            main.interrupt(new FlowInterruptedException('ABORTED', 'Aborted by a person'))
        } finally {
            turn.leave()
        }
    }

    static String resultOf(Throwable failure) { failure instanceof FlowInterruptedException ? failure.result : 'FAILURE' }

    void close() { text.close() }
}

/** The global variable currentBuild: what a sandboxed script may ask of its own build. */
class CurrentBuild {
    private final Build build

    CurrentBuild(Build build) { this.build = build }

    String getResult() { build.result }

    void setResult(String result) { build.result = result }

    String getCurrentResult() { build.currentResult }

    String getDescription() { build.description }

    void setDescription(String description) { build.description = description }

    int getNumber() { build.scenario.environment.BUILD_NUMBER as int }

    String getAbsoluteUrl() { build.scenario.environment.BUILD_URL }

    List<Map> getBuildCauses() { build.scenario.causes as List<Map> }

    List<Map> getBuildCauses(String type) { buildCauses.findAll { it._class == type } }
}

/** The global variable env: variables of the build and of the blocks around; what a script sets is for the whole build. */
class Env {
    private final Build build

    Env(Build build) { this.build = build }

    def propertyMissing(String name) { build.variables()[name] }

    void propertyMissing(String name, Object value) { build.own[name] = value as String }
}

/** The global variable params, which cannot be changed. */
class Params {
    private final Build build

    Params(Build build) { this.build = build }

    def propertyMissing(String name) { build.parameters[name] }
}
