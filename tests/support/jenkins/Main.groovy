import groovy.json.JsonSlurper
import org.codehaus.groovy.ast.expr.DeclarationExpression
import org.codehaus.groovy.control.CompilationUnit
import org.codehaus.groovy.control.CompilerConfiguration
import org.codehaus.groovy.control.Phases

/** Runs one scenario, or lists what files use: Main run SCENARIO EVENTS, Main uses EVENTS FILE... */
class Main {
    static void main(String[] given) {
        if (given[0] == 'uses') {
            uses(new Log(new File(given[1])), given.drop(2) as List)
        } else {
            run(new JsonSlurper().parse(new File(given[1])) as Map, new Log(new File(given[2])))
        }
        System.exit(0) // threads that watch are no reason to stay
    }

    private static void run(Map scenario, Log log) {
        Build build = new Build(scenario, log)
        build.turn.take()
        build.main.enter()
        try {
            PipelineScript script = load(build, new File(scenario.jenkinsfile as String))
            watch(build)
            script.run()
        } catch (RefusedException refused) {
            build.result = 'FAILURE'
            log.event('refused', errors: refused.errors)
        } catch (Throwable failure) {
            build.result = Build.resultOf(failure)
            log.event('failed', error: build.masked(failure.message), type: failure.class.name)
            build.console("${failure}\n" + failure.stackTrace.findAll { it.fileName == 'WorkflowScript.groovy' }.collect { "    at ${it}" }.join('\n'))
        } finally {
            build.log.event('end', result: build.currentResult, description: build.description == null ? null : build.masked(build.description))
            build.turn.leave()
            build.close()
            log.close()
        }
    }

    /** Compile the file and the steps of the libraries that it asks for; what the declarative parser refuses never runs. */
    private static PipelineScript load(Build build, File jenkinsfile) {
        CompilerConfiguration configuration = new CompilerConfiguration(scriptBaseClass: PipelineScript.name)
        GroovyClassLoader loader = new GroovyClassLoader(Main.classLoader, configuration)
        Map<String, Object> steps = [:]
        Binding binding = new Binding([build$: build, libraries$: steps])
        List<File> files = []
        for (String name in asked(jenkinsfile)) {
            File library = new File((build.scenario.libraries[name] ?: '') as String)
            if (!library.directory) { throw new RefusedException(["No library named ${name} found" as String]) }
            files.addAll(new File(library, 'vars').listFiles().findAll { it.name.endsWith('.groovy') })
        }
        List<String> errors = (files + jenkinsfile).collectMany { File file -> Grammar.errors(parsed(file, Phases.CONVERSION).AST).collect { "${file.name}: ${it}" as String } }
        if (errors) { throw new RefusedException(errors) }
        files.each { File file -> steps[file.name - '.groovy'] = instance(loader, file, binding) }
        return instance(loader, jenkinsfile, binding)
    }

    private static PipelineScript instance(GroovyClassLoader loader, File file, Binding binding) {
        String name = file.name.contains('.') ? file.name : 'WorkflowScript.groovy'
        PipelineScript script = loader.parseClass(file.getText('UTF-8'), name).newInstance() as PipelineScript
        script.binding = binding
        return script
    }

    private static List<String> asked(File jenkinsfile) {
        return parsed(jenkinsfile, Phases.CONVERSION).AST.statementBlock.statements.collectMany { statement ->
            def expression = statement.hasProperty('expression') ? statement.expression : null
            expression instanceof DeclarationExpression ? expression.annotations.findAll { it.classNode.nameWithoutPackage == 'Library' }*.members*.value*.value : []
        }
    }

    private static def parsed(File file, int phase) {
        CompilationUnit unit = new CompilationUnit(new CompilerConfiguration(scriptBaseClass: PipelineScript.name), null, new GroovyClassLoader(Main.classLoader))
        def source = unit.addSource(file.name.contains('.') ? file.name : 'WorkflowScript.groovy', file.getText('UTF-8'))
        unit.compile(phase)
        return source
    }

    private static void uses(Log log, List<String> names) {
        for (String name in names) {
            def source = parsed(new File(name), Phases.SEMANTIC_ANALYSIS)
            Grammar.errors(parsed(new File(name), Phases.CONVERSION).AST).each { log.event('error', file: name, error: it) }
            Uses uses = new Uses(source)
            source.AST.classes.each { uses.visitClass(it) }
            uses.found.each { log.event(it + [file: name], it.kind as String) }
        }
        log.close()
    }

    /** Abort the build as soon as the scenario's command succeeds. */
    private static void watch(Build build) {
        if (!build.scenario.abort_when) { return }
        Thread.startDaemon {
            while (new ProcessBuilder('sh', '-c', build.scenario.abort_when as String).redirectErrorStream(true).redirectOutput(new File('/dev/null')).start().waitFor() != 0) {
                Thread.sleep(100)
            }
            build.abort()
        }
    }
}
