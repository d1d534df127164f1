/** What the multibranch job found: the global variable scm. */
class Scm {
    String repository
    String commit
}

/** Steps that every controller has: workflow-basic-steps, -cps, -durable-task-step, credentials-binding, pipeline-milestone-step. */
class CoreSteps {
    private final Build build
    private int milestone

    CoreSteps(Build build) { this.build = build }

    Map<String, Step> all() {
        Shell shell = new Shell(build)
        return Steps.named(
            echo: [sole: 'message', required: ['message'], act: { Map given -> echo(given.message as String) }],
            error: [sole: 'message', required: ['message'], act: { Map given -> throw new AbortException(given.message as String) }],
            catchError: [sole: 'message', optional: ['message', 'buildResult', 'stageResult', 'catchInterruptions'], body: true,
                         act: { Map given, Closure body -> caught(given, body) }],
            sleep: [sole: 'time', required: ['time'], optional: ['unit'], act: { Map given -> rest(given.time as int) }],
            sh: [sole: 'script', required: ['script'], optional: ['label', 'returnStdout', 'returnStatus', 'encoding'], workspace: true,
                 act: { Map given -> shell.run(given) }],
            withEnv: [sole: 'overrides', required: ['overrides'], body: true, act: { Map given, Closure body -> withEnv(given.overrides as List, body) }],
            withCredentials: [sole: 'bindings', required: ['bindings'], body: true,
                              act: { Map given, Closure body -> build.credentials.bind(given.bindings as List, body) }],
            node: [sole: 'label', optional: ['label'], body: true, act: { Map given, Closure body -> build.places.use(given.label as String, body) }],
            parallel: [sole: 'map', required: ['map'], act: { Map given -> new Parallel(build).run(given.map as Map) }],
            milestone: [sole: 'ordinal', required: ['ordinal'], optional: ['label'], act: { Map given -> pass(given.ordinal as int) }],
            checkout: [sole: 'scm', required: ['scm'], workspace: true, act: { Map given -> checkout(given.scm as Scm) }],
        )
    }

    private void echo(String message) {
        build.console(message)
        build.log.event('echo', message: build.masked(message))
    }

    /** The build gets the result of what went wrong in the block, and goes on behind it; an interruption can be left to go through. */
    private void caught(Map given, Closure body) {
        try {
            body.call()
        } catch (FlowInterruptedException interruption) {
            if (given.catchInterruptions == false) { throw interruption }
            build.result = interruption.result
        } catch (Exception failure) {
            build.console("ERROR: ${given.message ?: failure.message}")
            build.result = given.buildResult ?: 'FAILURE'
            build.log.event('caught', error: failure.message)
        }
    }

    private void rest(int seconds) {
        Strand strand = Strand.current()
        long deadline = System.currentTimeMillis() + seconds * 1000
        build.turn.aside { while (System.currentTimeMillis() < deadline && !strand.interruption) { Thread.sleep(20) } }
        strand.check()
    }

    private def withEnv(List overrides, Closure body) {
        Map variables = overrides.collectEntries { it.toString().split('=', 2) as List }
        return Strand.current().within(new Frame(variables: variables), body)
    }

    /** A milestone that a newer build has passed ends this one. */
    private void pass(int ordinal) {
        if (ordinal <= milestone) { throw new AbortException("Invalid ordinal ${ordinal}, the previous one was ${milestone}") }
        milestone = ordinal
        build.log.event('milestone', ordinal: ordinal, stage: Strand.current().stage)
        if (build.scenario.superseded_at && ordinal >= (build.scenario.superseded_at as int)) {
            throw new FlowInterruptedException('NOT_BUILT', 'Superseded by a newer build')
        }
    }

    /** The commit of this build; what git does not know of stays in the workspace, as with Jenkins' git plugin. */
    private Map checkout(Scm scm) {
        File folder = Strand.current().folder
        List<List<String>> commands = [
            ['git', 'init', '--quiet'],
            ['git', 'fetch', '--quiet', '--force', scm.repository, '+refs/heads/*:refs/remotes/origin/*'],
            ['git', 'checkout', '--quiet', '--force', scm.commit],
        ]
        commands.each { List<String> command ->
            build.turn.aside {
                Process process = new ProcessBuilder(command).directory(folder).redirectErrorStream(true).start()
                String said = process.inputStream.text
                if (process.waitFor() != 0) { throw new AbortException("${command.join(' ')}: ${said}") }
            }
        }
        build.log.event('checkout', commit: scm.commit, workspace: Strand.current().place.workspace.path, branch: Strand.current().branch)
        return [GIT_COMMIT: scm.commit]
    }
}
