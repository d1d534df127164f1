/** What a block adds to its context: variables, secrets to mask, a folder, a stage. */
class Frame {
    Map<String, String> variables = [:]
    List<String> secrets = []
    Place place
    File folder
    String stage
}

/** One line of execution: the build's own, or a branch of parallel. It knows the blocks that it is in. */
class Strand {
    private static final ThreadLocal<Strand> CURRENT = new ThreadLocal<>()

    final String branch
    final Strand parent
    final List<Strand> children = [].asSynchronized()
    private final List<Frame> frames = []
    /** Set from outside: the step that waits, or the next one that does, ends with it. */
    volatile FlowInterruptedException interruption

    Strand(String branch, Strand parent) {
        this.branch = branch
        this.parent = parent
        if (parent) { frames.addAll(parent.frames) }
    }

    static Strand current() { CURRENT.get() }

    void enter() { CURRENT.set(this) }

    def within(Frame frame, Closure body) {
        frames.add(frame)
        try {
            return body()
        } finally {
            frames.remove(frames.size() - 1)
        }
    }

    Place getPlace() { frames.reverse().findResult { it.place } }

    File getFolder() { frames.reverse().findResult { it.folder } }

    String getStage() { frames.reverse().findResult { it.stage } }

    Map<String, String> getVariables() { frames.inject([:]) { Map all, Frame frame -> all + frame.variables } as Map<String, String> }

    List<String> getSecrets() { frames.collectMany { it.secrets } }

    /** Stop what runs here: the branches where there are some, else the step that waits. */
    void interrupt(FlowInterruptedException why) {
        List<Strand> branches = children.toList()
        if (branches) {
            branches.each { it.interrupt(why) }
        } else {
            interruption = why
        }
    }

    void check() {
        FlowInterruptedException why = interruption
        if (why) {
            interruption = null
            throw why
        }
    }
}
