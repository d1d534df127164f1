// Stands in for Jenkins' agent.jar: says how it was called, and ends when it is told to.
class Agent {
    static void main(String[] arguments) {
        Runtime.runtime.addShutdownHook(new Thread({ println('told to end') }))
        println("called: ${arguments.join(' ')}")
        println("secret: ${new File(arguments[arguments.findIndexOf { it == '-secret' } + 1] - '@').text.trim().length()} characters")
        println("environment: ${System.getenv().keySet().findAll { it.contains('SECRET') }}")
        synchronized (Agent) { Agent.wait() }
    }
}
