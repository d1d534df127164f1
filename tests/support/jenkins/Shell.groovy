/** The step sh, as durable-task runs it: sh -xe, a process group and a cookie of its own, stderr to the log. */
class Shell {
    private static final long POLL_MILLISECONDS = 20
    private final Build build

    Shell(Build build) { this.build = build }

    def run(Map given) {
        if (given.returnStatus && given.returnStdout) {
            throw new IllegalArgumentException('you may not use returnStdout and returnStatus at the same time')
        }
        Strand strand = Strand.current()
        strand.check()
        File control = new File("${strand.place.workspace.path}@tmp/durable-${UUID.randomUUID()}")
        control.mkdirs()
        String cookie = "durable-${Md5.of(strand.folder.path.bytes)}"
        Map told = [label: given.label, script: build.masked(given.script), workspace: strand.place.workspace.path, agent: strand.place.agent.name,
                    stage: strand.stage, branch: strand.branch]
        build.log.event(told, 'sh')
        long began = System.nanoTime()
        boolean stopped = false
        int code = -1
        String output = ''
        try {
            Process process = start(given.script, control, cookie, given.returnStdout as boolean)
            code = build.turn.aside { follow(process, strand, cookie) { stopped = true } }
        } finally {
            String log = read(control, 'log')
            output = read(control, 'output')
            List<String> leaked = strand.secrets.findAll { log.contains(it) }
            build.console(log)
            build.log.event(told + [code: code, stopped: stopped, log: build.masked(log), output: build.masked(output), leaked: leaked.size(),
                                    seconds: (System.nanoTime() - began) / 1e9], 'sh end')
            control.deleteDir()
        }
        strand.check()
        if (given.returnStatus) { return code }
        if (code != 0) { throw new AbortException("script returned exit code ${code}") }
        return given.returnStdout ? output : null
    }

    private static String read(File control, String name) {
        File file = new File(control, name)
        return file.exists() ? file.getText('UTF-8') : ''
    }

    private Process start(String script, File control, String cookie, boolean separate) {
        File file = new File(control, 'script.sh')
        file.setText(script, 'UTF-8')
        file.executable = true
        List<String> command = script.startsWith('#!') ? [file.path] : ['sh', '-xe', file.path]
        ProcessBuilder builder = new ProcessBuilder(['setsid'] + command).directory(Strand.current().folder)
        builder.environment().clear()
        builder.environment().putAll(build.variables() + [JENKINS_SERVER_COOKIE: cookie])
        builder.redirectInput(new File('/dev/null'))
        if (separate) {
            builder.redirectOutput(new File(control, 'output')).redirectError(new File(control, 'log'))
        } else {
            builder.redirectErrorStream(true).redirectOutput(new File(control, 'log'))
        }
        return builder.start()
    }

    /** Wait for the end; when stopped, end what carries the cookie: SIGTERM, after the grace SIGKILL. */
    private int follow(Process process, Strand strand, String cookie, Closure onStop) {
        while (process.alive) {
            if (strand.interruption) {
                onStop()
                List<Map> ended = Processes.carrying("JENKINS_SERVER_COOKIE=${cookie}")
                build.log.event('signal', branch: strand.branch, processes: ended)
                Processes.signal(ended, false)
                if (!process.waitFor(build.scenario.grace as long, java.util.concurrent.TimeUnit.SECONDS)) {
                    List<Map> left = Processes.carrying("JENKINS_SERVER_COOKIE=${cookie}")
                    build.log.event('killed', branch: strand.branch, processes: left)
                    Processes.signal(left, true)
                }
                return process.waitFor()
            }
            process.waitFor(POLL_MILLISECONDS, java.util.concurrent.TimeUnit.MILLISECONDS)
        }
        return process.exitValue()
    }
}
