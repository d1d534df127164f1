/** Processes found by a variable of their environment, as Jenkins finds what belongs to a step or a build. */
class Processes {
    private static final long POLL_MILLISECONDS = 20

    /** All living processes whose environment has the entry: number and command line. */
    static List<Map> carrying(String entry) {
        String wanted = "\0${entry}\0"
        List<Map> found = []
        for (File folder in new File('/proc').listFiles()) {
            if (!folder.name.isInteger()) { continue }
            try {
                String environment = '\0' + new File(folder, 'environ').getText('ISO-8859-1') + '\0'
                if (environment.contains(wanted)) {
                    found.add([pid: folder.name as long, command: new File(folder, 'cmdline').text.replace('\0', ' ').trim()])
                }
            } catch (IOException ignored) { // it ended meanwhile, or is someone else's
            }
        }
        return found.findAll { it.command }
    }

    static void signal(Collection<Map> processes, boolean forcibly) {
        for (Map process in processes) {
            ProcessHandle.of(process.pid as long).ifPresent { forcibly ? it.destroyForcibly() : it.destroy() }
        }
    }

    static boolean alive(Map process) { ProcessHandle.of(process.pid as long).map { it.alive }.orElse(false) }

    /** SIGTERM, and SIGKILL for what is still there after so many seconds. */
    static void end(List<Map> processes, int seconds) {
        signal(processes, false)
        long deadline = System.currentTimeMillis() + seconds * 1000
        while (processes.any { alive(it) } && System.currentTimeMillis() < deadline) { sleep(POLL_MILLISECONDS) }
        signal(processes.findAll { alive(it) }, true)
    }
}
