/** The step parallel: real threads, of which one at a time has its turn; the first failure stops the others where fail-fast is asked for. */
class Parallel {
    private final Build build

    Parallel(Build build) { this.build = build }

    def run(Map given) {
        Map branches = given.findAll { it.key != 'failFast' }
        boolean failFast = given.failFast as boolean
        if (!branches) { throw new IllegalArgumentException('No branches to run') }
        branches.each { name, body -> if (!(body instanceof Closure)) { throw new IllegalArgumentException("branch '${name}' is no block") } }
        Strand parent = Strand.current()
        parent.check()
        Map<String, Throwable> failures = [:]
        List<Thread> threads = branches.collect { name, body -> begin(name as String, body as Closure, parent, failures, failFast) }
        build.turn.aside { threads*.join() }
        parent.children.clear()
        List<Throwable> told = failures.values().sort { it instanceof FlowInterruptedException ? 1 : 0 }
        if (told) { throw told.first() }
        parent.check()
        return null
    }

    private Thread begin(String name, Closure body, Strand parent, Map<String, Throwable> failures, boolean failFast) {
        Strand strand = new Strand(name, parent)
        parent.children.add(strand)
        Thread thread = new Thread({
            build.turn.take()
            strand.enter()
            String result = 'SUCCESS'
            try {
                build.log.event('branch', name: name, stage: strand.stage)
                strand.check()
                body.call()
            } catch (Throwable failure) {
                result = Build.resultOf(failure)
                failures[name] = failure
                build.log.event('branch failed', name: name, error: failure.message)
                if (failFast && failures.size() == 1) {
                    parent.children.findAll { !it.is(strand) }.each { it.interrupt(new FlowInterruptedException('ABORTED', 'Failed in branch ' + name)) }
                }
            } finally {
                parent.children.remove(strand)
                build.log.event('branch end', name: name, stage: strand.stage, result: result)
                build.turn.leave()
            }
        }, "branch ${name}")
        thread.start()
        return thread
    }
}
