/** What the blocks of a declarative pipeline are evaluated against: the directives that there are, and the global variables. */
class Section extends GroovyObjectSupport {
    private final String title
    private final PipelineScript script
    private final Map<String, Closure> directives
    private final Closure assigned

    Section(String title, PipelineScript script, Map<String, Closure> directives, Closure assigned = null) {
        this.title = title
        this.script = script
        this.directives = directives
        this.assigned = assigned
    }

    static void read(String title, PipelineScript script, Closure body, Map<String, Closure> directives, Closure assigned = null) {
        Closure own = body.clone() as Closure
        own.delegate = new Section(title, script, directives, assigned)
        own.resolveStrategy = Closure.DELEGATE_ONLY
        own.call()
    }

    /** A block of steps: the functions of the file, the steps, the global variables. */
    static Closure code(PipelineScript script, Closure body) { body.rehydrate(script, script, script) }

    @Override
    Object invokeMethod(String name, Object given) {
        Closure directive = directives[name] ?: directives['*']
        if (!directive) { throw new RefusedException(["${title}: no directive '${name}'" as String]) }
        Object[] values = given instanceof Object[] ? given : [given] as Object[]
        return directive.is(directives['*']) ? directive.call(name, values) : directive.call(*values)
    }

    @Override
    Object getProperty(String name) { title == 'pipeline' && name in ['any', 'none'] ? name : script.getProperty(name) }

    @Override
    void setProperty(String name, Object value) {
        if (!assigned) { throw new RefusedException(["${title}: no variable can be set here: '${name}'" as String]) }
        assigned.call(name, value)
    }
}
