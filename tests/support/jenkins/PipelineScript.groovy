/** What a Jenkinsfile and the steps of a shared library are: scripts that know the steps and the global variables, and nothing else. */
abstract class PipelineScript extends Script {
    Build getBuild$() { binding.getVariable('build$') as Build }

    @Override
    Object invokeMethod(String name, Object given) {
        Object[] values = given instanceof Object[] ? given : [given] as Object[]
        if (metaClass.respondsTo(this, name, values)) { return super.invokeMethod(name, values) }
        Map<String, Object> libraries = binding.getVariable('libraries$') as Map
        if (libraries.containsKey(name)) { return libraries[name].call(*values) }
        if (name == 'pipeline') { return new Declarative(build$, this).run(values[0] as Closure) }
        return build$.steps.call(name, values)
    }

    @Override
    Object getProperty(String name) {
        switch (name) {
            case 'env': return new Env(build$)
            case 'params': return new Params(build$)
            case 'currentBuild': return new CurrentBuild(build$)
            case 'scm': return build$.scm
            case ['binding', 'metaClass', 'class', 'build$']: return super.getProperty(name)
        }
        String variable = build$.variables()[name]
        if (variable != null) { return variable }
        throw new MissingPropertyException("No such property: ${name} for class: groovy.lang.Binding")
    }
}
