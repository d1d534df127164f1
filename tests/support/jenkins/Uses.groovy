import org.codehaus.groovy.ast.ClassCodeVisitorSupport
import org.codehaus.groovy.ast.ClassNode
import org.codehaus.groovy.ast.MethodNode
import org.codehaus.groovy.ast.expr.*
import org.codehaus.groovy.control.SourceUnit

/** Lists what a file uses of Groovy and Java, as far as it can be read off: what the sandbox would be asked. */
class Uses extends ClassCodeVisitorSupport {
    final List<Map> found = []
    private final SourceUnit source

    Uses(SourceUnit source) { this.source = source }

    @Override
    protected SourceUnit getSourceUnit() { source }

    @Override
    void visitMethod(MethodNode method) {
        if (!method.synthetic) { note('method', method, name: method.name, type: method.returnType.name) }
        super.visitMethod(method)
    }

    @Override
    void visitMethodCallExpression(MethodCallExpression call) {
        note('call', call, name: call.methodAsString ?: call.method.text, receiver: call.implicitThis ? 'this' : typeOf(call.objectExpression), safe: call.safe,
             spread: call.spreadSafe, blocks: call.arguments instanceof TupleExpression ? call.arguments.expressions.count { it instanceof ClosureExpression } : 0)
        super.visitMethodCallExpression(call)
    }

    @Override
    void visitPropertyExpression(PropertyExpression property) {
        note('property', property, name: property.propertyAsString ?: '*', receiver: typeOf(property.objectExpression))
        super.visitPropertyExpression(property)
    }

    @Override
    void visitConstructorCallExpression(ConstructorCallExpression call) {
        note('new', call, name: call.type.name)
        super.visitConstructorCallExpression(call)
    }

    @Override
    void visitStaticMethodCallExpression(StaticMethodCallExpression call) {
        note('static', call, name: call.method, receiver: call.ownerType.name)
        super.visitStaticMethodCallExpression(call)
    }

    @Override
    void visitCastExpression(CastExpression cast) {
        note('cast', cast, name: cast.type.name)
        super.visitCastExpression(cast)
    }

    @Override
    void visitDeclarationExpression(DeclarationExpression declaration) {
        note('variable', declaration, name: declaration.variableExpression.name, type: declaration.variableExpression.originType.name)
        super.visitDeclarationExpression(declaration)
    }

    @Override
    void visitBinaryExpression(BinaryExpression expression) {
        note('operator', expression, name: expression.operation.text)
        super.visitBinaryExpression(expression)
    }

    @Override
    void visitVariableExpression(VariableExpression variable) {
        if (variable.accessedVariable instanceof org.codehaus.groovy.ast.DynamicVariable) { note('global', variable, name: variable.name) }
        super.visitVariableExpression(variable)
    }

    @Override
    void visitMethodPointerExpression(MethodPointerExpression pointer) {
        note('pointer', pointer, name: pointer.methodName.text)
        super.visitMethodPointerExpression(pointer)
    }

    /** The declared type of a variable; the name of a global variable or of a function whose value it is; else what kind of expression it is. */
    private static String typeOf(Expression expression) {
        if (expression instanceof VariableExpression) {
            boolean dynamic = expression.accessedVariable instanceof org.codehaus.groovy.ast.DynamicVariable
            ClassNode type = expression.originType
            return dynamic || expression.name == 'this' ? expression.name : type.array ? "${type.componentType.name}[]" : type.name
        }
        if (expression instanceof ClassExpression) { return "class ${expression.type.name}" }
        if (expression instanceof MethodCallExpression) { return "${expression.implicitThis ? '' : typeOf(expression.objectExpression) + '.'}${expression.methodAsString}()" }
        return expression.class.simpleName
    }

    private void note(Map fields, String kind, org.codehaus.groovy.ast.ASTNode node) {
        if (node.lineNumber > 0) { found.add([kind: kind, line: node.lineNumber] + fields.collectEntries { key, value -> [key, value instanceof GString ? value as String : value] }) }
    }
}
