/** A step or symbol whose values a plugin reads: string(...), sarif(...), logRotator(...). */
class Describable {
    String symbol
    Map given
}

/** What a step is called with, and what it does. ``sole`` is the parameter that may come without its name. */
class Step {
    String sole
    List<String> required = []
    List<String> optional = []
    boolean body
    boolean workspace
    String plugin
    Closure act
}

/** All steps and symbols that there are, by name; anything else is no DSL method. */
class Steps {
    private static final Map<String, Map> SYMBOLS = [
        string: [:], file: [:], usernamePassword: [:], logRotator: [:], text: [:], booleanParam: [:], choice: [:], cron: [:], sarif: [plugin: 'warnings-ng'],
    ]
    private final Build build
    private final Map<String, Step> all

    Steps(Build build) {
        this.build = build
        all = new CoreSteps(build).all() + new FileSteps(build).all() + new ReportSteps(build).all()
    }

    static Map<String, Step> named(Map<String, Map> given) { given.collectEntries { name, values -> [name, new Step(values)] } as Map<String, Step> }

    def call(String name, Object[] given) {
        Step step = all[name]
        if (step && (!step.plugin || build.installed(step.plugin))) { return act(name, step, given) }
        Map symbol = SYMBOLS[name]
        if (symbol != null && (!symbol.plugin || build.installed(symbol.plugin))) {
            if (given.length == 1 && given[0] instanceof Map) { return new Describable(symbol: name, given: given[0] as Map) }
            throw new IllegalArgumentException("${name}: named arguments are expected, not ${given}")
        }
        throw new NoSuchMethodError("No such DSL method '${name}' found among steps ${all.keySet().sort()}")
    }

    private def act(String name, Step step, Object[] given) {
        List values = given as List
        Closure body = values && values.last() instanceof Closure ? values.pop() as Closure : null
        if (step.body != (body != null)) { throw new IllegalArgumentException("${name}: ${step.body ? 'a block is missing' : 'takes no block'}") }
        Map named = arguments(name, step, values)
        List unknown = (named.keySet() - step.required - step.optional) as List
        if (unknown) { throw new IllegalArgumentException("${name}: unknown parameters ${unknown}") }
        List missing = step.required.findAll { named[it] == null }
        if (missing) { throw new IllegalArgumentException("${name}: missing parameters ${missing}") }
        if (step.workspace && !Strand.current().place) {
            throw new IllegalStateException("${name}: required context class hudson.FilePath is missing: perhaps a node block is needed around")
        }
        return body ? step.act(named, body) : step.act(named)
    }

    private static Map arguments(String name, Step step, List values) {
        if (!values) { return [:] }
        if (values.size() > 1) { throw new IllegalArgumentException("${name}: expected named arguments, not ${values}") }
        if (values[0] instanceof Map && step.sole != 'map') { return plain(values[0] as Map) }
        if (!step.sole) { throw new IllegalArgumentException("${name}: expected named arguments, not ${values[0]}") }
        return plain([(step.sole): values[0]])
    }

    private static Map plain(Map given) { given.collectEntries { key, value -> [key as String, value instanceof GString ? value as String : value] } }
}
