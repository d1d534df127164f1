/** Runs a declarative pipeline: properties of the job, agent, checkout, environment, stages in order, post conditions. */
class Declarative {
    static final List<String> CONDITIONS = ['always', 'changed', 'fixed', 'regression', 'aborted', 'failure', 'success', 'unstable', 'unsuccessful', 'notBuilt', 'cleanup']
    private final Build build
    private final PipelineScript script
    private final Map<String, Object> parts = [:]
    private Map timeout

    Declarative(Build build, PipelineScript script) {
        this.build = build
        this.script = script
    }

    def run(Closure body) {
        Section.read('pipeline', script, body, ['*': { String name, Object[] given -> parts[name] = given[0] }])
        properties()
        String label = ''
        if (parts.agent instanceof Closure) { Section.read('agent', script, parts.agent, [label: { label = it }]) }
        Thread guard = timeout ? Thread.startDaemon { expire() } : null
        try {
            build.places.use(label) { onAgent() }
        } finally {
            guard?.interrupt()
        }
    }

    /** What the file says of its job is set before anything runs. */
    private void properties() {
        Map<String, Map> options = [:]
        List<Map> triggers = []
        if (parts.parameters) {
            Section.read('parameters', script, parts.parameters, ['*': { String name, Object[] given -> parameter(name, given[0] as Map) }])
        }
        if (parts.options) {
            Section.read('options', script, parts.options, ['*': { String name, Object[] given -> inOptions(name, given, options) }])
        }
        if (parts.triggers) {
            Section.read('triggers', script, parts.triggers, ['*': { String name, Object[] given -> triggers.add([symbol: name, given: given[0] as String]) }])
        }
        timeout = options.timeout
        List<String> unknown = (build.scenario.parameters.keySet() - build.definitions.keySet()) as List
        if (unknown) { throw new RefusedException(["the job has no parameters ${unknown}" as String]) }
        build.log.event('properties', options: options, triggers: triggers, parameters: build.definitions.values() as List)
    }

    private def inOptions(String name, Object[] given, Map options) {
        Map values = given ? given[0] as Map : [:]
        if (name == 'logRotator') { return [symbol: name] + values }
        options[name] = values
    }

    private void parameter(String kind, Map given) {
        Map known = [string: ['trim'], text: ['trim'], booleanParam: [], choice: ['choices'], password: []]
        List unknown = (given.keySet() - ['name', 'defaultValue', 'description'] - known[kind]) as List
        if (unknown || !given.name) { throw new RefusedException(["parameter ${given}: unknown ${unknown}" as String]) }
        Object value = kind == 'choice' ? given.choices[0] : kind == 'booleanParam' ? given.defaultValue as boolean : (given.defaultValue ?: '') as String
        build.definitions[given.name as String] = [kind: kind] + given + [defaultValue: value]
        Object chosen = build.scenario.parameters[given.name]
        if (kind == 'choice' && chosen != null && !(chosen in given.choices)) { throw new RefusedException(["illegal choice ${chosen}" as String]) }
        if (kind == 'booleanParam' && chosen != null && !(chosen instanceof Boolean)) { throw new RefusedException(["no boolean: ${chosen}" as String]) }
    }

    private void expire() {
        try {
            Thread.sleep(java.util.concurrent.TimeUnit.valueOf((timeout.unit ?: 'MINUTES') as String).toMillis(timeout.time as long))
            build.abort()
        } catch (InterruptedException ignored) { // the build ended in time
        }
    }

    private void onAgent() {
        stage('Declarative: Checkout SCM') { build.steps.call('checkout', [build.scm] as Object[]) }
        Map<String, String> variables = [:]
        Throwable failure = null
        Strand.current().within(new Frame(variables: variables)) {
            if (parts.environment) {
                Section.read('environment', script, parts.environment, [:]) { String name, Object value -> variables[name] = value as String }
            }
            failure = stages()
            failure = post(failure)
        }
        if (failure) { throw failure }
    }

    /** Every stage in order, from the one on that a restart asks for; after a failure the others are skipped. */
    private Throwable stages() {
        Throwable failure = null
        String awaited = build.scenario.restart_from
        Section.read('stages', script, parts.stages, [stage: { String name, Closure body ->
            if (name == awaited) { awaited = null }
            if (failure || awaited) {
                build.log.event('stage skipped', name: name, why: failure ? 'earlier failure' : 'restarted from a later one')
                return
            }
            try {
                one(name, body)
            } catch (Throwable thrown) {
                if (thrown instanceof RefusedException) { throw thrown }
                failure = thrown
                build.result = Build.resultOf(thrown)
            }
        }])
        return failure
    }

    private void one(String name, Closure body) {
        Closure condition = null
        Closure steps = null
        Section.read("stage ${name}", script, body, [when: { condition = it }, steps: { steps = it }])
        stage(name) {
            if (condition && !holds(condition)) { return 'skipped' }
            asSteps(steps).call()
            return null
        }
    }

    /** A block of steps in which `script` stands for its own content. */
    private Closure asSteps(Closure steps) {
        return {
            Closure own = steps.rehydrate(new Stepper(script), script, script)
            own.resolveStrategy = Closure.DELEGATE_ONLY
            own.call()
        }
    }

    private boolean holds(Closure condition) {
        boolean told = false
        Section.read('when', script, condition, [expression: { Closure body -> told = Section.code(script, body).call() as boolean }])
        return told
    }

    private void stage(String name, Closure body) {
        Strand strand = Strand.current()
        build.log.event('stage', name: name)
        String result = 'SUCCESS'
        try {
            String skipped = strand.within(new Frame(stage: name)) { body() instanceof String ? 'skipped' : null }
            if (skipped) { result = 'SKIPPED' }
        } catch (Throwable failure) {
            result = Build.resultOf(failure)
            build.log.event('stage failed', name: name, error: build.masked(failure.message), type: failure.class.name)
            build.console("${failure}")
            throw failure
        } finally {
            build.log.event('stage end', name: name, result: result)
        }
    }

    private Throwable post(Throwable earlier) {
        Throwable failure = earlier
        if (!parts.post) { return failure }
        Map<String, Closure> blocks = [:]
        Section.read('post', script, parts.post, CONDITIONS.collectEntries { String name -> [name, { Closure body -> blocks[name] = body }] } as Map<String, Closure>)
        stage('Declarative: Post Actions') {
            for (String name in CONDITIONS.findAll { it in blocks && applies(it) }) {
                build.log.event('post', condition: name, result: build.currentResult)
                try {
                    asSteps(blocks[name]).call()
                } catch (Throwable thrown) {
                    build.log.event('post failed', condition: name, error: build.masked(thrown.message), type: thrown.class.name)
                    build.console("Error when executing ${name} post condition: ${thrown}")
                    build.result = Build.resultOf(thrown)
                    failure = failure ?: thrown
                }
            }
        }
        return failure
    }

    private boolean applies(String condition) {
        String result = build.currentResult
        Map<String, Closure<Boolean>> when = [
            always: { true }, cleanup: { true }, success: { result == 'SUCCESS' }, failure: { result == 'FAILURE' }, aborted: { result == 'ABORTED' },
            unstable: { result == 'UNSTABLE' }, unsuccessful: { result != 'SUCCESS' }, notBuilt: { result == 'NOT_BUILT' },
        ]
        if (!when[condition]) { throw new RefusedException(["post: '${condition}' needs a build before this one, which these tests have not" as String]) }
        return when[condition]()
    }
}

/** What steps of a declarative stage are called on: the script, and the step `script`. */
class Stepper extends GroovyObjectSupport {
    private final PipelineScript script

    Stepper(PipelineScript script) { this.script = script }

    @Override
    Object invokeMethod(String name, Object given) {
        Object[] values = given instanceof Object[] ? given : [given] as Object[]
        if (name == 'script') { return Section.code(script, values[0] as Closure).call() }
        return script.invokeMethod(name, values)
    }

    @Override
    Object getProperty(String name) { script.getProperty(name) }
}
