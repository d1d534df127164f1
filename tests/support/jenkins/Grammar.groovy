import org.codehaus.groovy.ast.ModuleNode
import org.codehaus.groovy.ast.expr.*
import org.codehaus.groovy.ast.stmt.*

/** What Jenkins' own parser refuses of a declarative pipeline before it runs: unknown sections, code where only steps may be. */
class Grammar {
    private static final List<String> ROOT = ['agent', 'environment', 'libraries', 'options', 'parameters', 'post', 'stages', 'tools', 'triggers']
    private static final List<String> STAGE = ['agent', 'environment', 'input', 'options', 'post', 'steps', 'tools', 'when', 'stages', 'parallel', 'matrix', 'failFast']
    private static final List<String> WHEN = ['expression', 'branch', 'environment', 'not', 'allOf', 'anyOf', 'changeRequest', 'buildingTag', 'tag', 'triggeredBy',
                                              'equals', 'changelog', 'changeset', 'beforeAgent', 'beforeInput', 'beforeOptions']
    private static final List<String> OPTIONS = ['buildDiscarder', 'checkoutToSubdirectory', 'disableConcurrentBuilds', 'disableRestartFromStage', 'disableResume',
                                                 'newContainerPerStage', 'overrideIndexTriggers', 'parallelsAlwaysFailFast', 'preserveStashes', 'quietPeriod',
                                                 'rateLimitBuilds', 'retry', 'skipDefaultCheckout', 'skipStagesAfterUnstable', 'timeout', 'timestamps']
    private static final List<String> TRIGGERS = ['cron', 'pollSCM', 'upstream']
    private static final List<String> PARAMETERS = ['string', 'text', 'booleanParam', 'choice', 'password']
    private static final List<String> AGENTS = ['label', 'node', 'docker', 'dockerfile', 'kubernetes']
    private final List<String> errors = []

    /** The errors of a file; none too for one that has no declarative pipeline. */
    static List<String> errors(ModuleNode module) {
        Grammar grammar = new Grammar()
        List<Statement> top = module.statementBlock.statements + module.methods.findAll { it.name == 'call' }.collectMany { (it.code as BlockStatement).statements }
        top.collect { callOf(it) }.findAll { it?.methodAsString == 'pipeline' }.each { grammar.root(it) }
        return grammar.errors
    }

    private void root(MethodCallExpression pipeline) {
        Map<String, MethodCallExpression> parts = sections('pipeline', block(pipeline, 'pipeline'), ROOT)
        ['agent', 'stages'].findAll { !(it in parts) }.each { errors.add("pipeline: section '${it}' is missing" as String) }
        if (parts.agent) { agent(parts.agent) }
        [options: OPTIONS, triggers: TRIGGERS, parameters: PARAMETERS].each { name, known -> if (parts[name]) { declarations(name, parts[name], known) } }
        if (parts.environment) { environment(parts.environment) }
        if (parts.stages) { calls('stages', block(parts.stages, 'stages')).each { stage(it) } }
        if (parts.post) { post(parts.post) }
    }

    private void stage(MethodCallExpression found) {
        List<Expression> given = arguments(found)
        if (found.methodAsString != 'stage' || given.size() != 2 || !(given[0] instanceof ConstantExpression) || !(given[1] instanceof ClosureExpression)) {
            error('stages', found, 'expected stage(\'name\') { … }')
            return
        }
        String title = "stage '${given[0].text}'"
        Map<String, MethodCallExpression> parts = sections(title, given[1] as ClosureExpression, STAGE)
        if (['steps', 'stages', 'parallel', 'matrix'].count { it in parts } != 1) { error(title, found, 'expected one of steps, stages, parallel, matrix') }
        if (parts.when) { sections("${title}, when", block(parts.when, title), WHEN) }
        if (parts.steps) { steps(title, block(parts.steps, title)) }
        if (parts.environment) { environment(parts.environment) }
        if (parts.post) { post(parts.post) }
    }

    private void steps(String title, ClosureExpression body) {
        List<MethodCallExpression> found = calls(title, body)
        if (!found) { error(title, body, 'no steps') }
        for (MethodCallExpression step in found) {
            if (step.methodAsString in ['stage', 'pipeline', 'parallel', 'properties']) { error(title, step, "'${step.methodAsString}' is not allowed here") }
            if (step.methodAsString == 'script') { continue }
            List<Expression> given = arguments(step)
            if (given && given.last() instanceof ClosureExpression) { steps("${title}, ${step.methodAsString}", given.last() as ClosureExpression) }
        }
    }

    private void post(MethodCallExpression found) {
        sections('post', block(found, 'post'), Declarative.CONDITIONS).each { name, condition -> steps("post, ${name}", block(condition, 'post')) }
    }

    private void agent(MethodCallExpression found) {
        List<Expression> given = arguments(found)
        if (given.size() == 1 && given[0] instanceof VariableExpression && given[0].name in ['any', 'none']) { return }
        if (sections('agent', block(found, 'agent'), AGENTS).size() != 1) { error('agent', found, 'expected one kind of agent') }
    }

    private void environment(MethodCallExpression found) {
        for (Statement statement in statements(block(found, 'environment'))) {
            Expression expression = statement instanceof ExpressionStatement ? statement.expression : null
            if (!(expression instanceof BinaryExpression) || expression.operation.text != '=' || !(expression.leftExpression instanceof VariableExpression)) {
                error('environment', statement, 'expected NAME = value')
            } else if (![ConstantExpression, GStringExpression, MethodCallExpression].any { it.isInstance(expression.rightExpression) }) {
                error('environment', statement, 'a value is a quoted text or a call')
            }
        }
    }

    private void declarations(String title, MethodCallExpression found, List<String> known) {
        List<MethodCallExpression> inside = calls(title, block(found, title))
        if (!inside) { error(title, found, 'is empty') }
        for (MethodCallExpression declared in inside) {
            if (!(declared.methodAsString in known)) { error(title, declared, "there is no '${declared.methodAsString}'") }
            if (arguments(declared).any { it instanceof ClosureExpression }) { error(title, declared, 'takes no block') }
        }
    }

    private Map<String, MethodCallExpression> sections(String title, ClosureExpression body, List<String> known) {
        Map<String, MethodCallExpression> found = [:]
        for (MethodCallExpression part in calls(title, body)) {
            String name = part.methodAsString
            if (!(name in known)) { error(title, part, "undefined section '${name}'") }
            if (name in found) { error(title, part, "multiple occurrences of '${name}'") }
            found[name] = part
        }
        return found
    }

    private List<MethodCallExpression> calls(String title, ClosureExpression body) {
        return statements(body).findResults { Statement statement ->
            MethodCallExpression found = callOf(statement)
            if (!found) { error(title, statement, 'only calls may stand here, code needs a script block') }
            return found
        }
    }

    private ClosureExpression block(MethodCallExpression found, String title) {
        List<Expression> given = arguments(found)
        if (given.size() == 1 && given[0] instanceof ClosureExpression) { return given[0] as ClosureExpression }
        error(title, found, 'expected one block')
        return new ClosureExpression(null, new BlockStatement())
    }

    private static List<Statement> statements(ClosureExpression body) {
        return body.code instanceof BlockStatement ? (body.code as BlockStatement).statements : [body.code]
    }

    private static MethodCallExpression callOf(Statement statement) {
        Expression expression = statement instanceof ExpressionStatement || statement instanceof ReturnStatement ? statement.expression : null
        boolean fits = expression instanceof MethodCallExpression && expression.implicitThis && expression.methodAsString
        return fits ? expression as MethodCallExpression : null
    }

    private static List<Expression> arguments(MethodCallExpression found) {
        return found.arguments instanceof TupleExpression ? (found.arguments as TupleExpression).expressions : [found.arguments]
    }

    private void error(String title, org.codehaus.groovy.ast.ASTNode node, String what) { errors.add("${title}, line ${node.lineNumber}: ${what}" as String) }
}
