// Runs a Job DSL script with the methods below and no others, and prints what it asked for as JSON.
//
// arguments: the script, a JSON object of its variables
//
// A method takes a closure with its own methods (a map), one value of a class, or nothing (null). The names, and what they take, are
// those of job-dsl, cloudbees-folder, branch-api, git, github-branch-source, scm-api and basic-branch-build-strategies.
import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import org.codehaus.groovy.control.CompilerConfiguration

class Methods {
    static final Map FILTER = [includes: String, excludes: String]
    static final Map TRUST = [gitHubTrustNobody: null, gitHubTrustPermissions: null, gitHubTrustContributors: null, gitHubTrustEveryone: null]
    static final Map GITHUB_TRAITS = [
        gitHubBranchDiscovery: [strategyId: Integer],
        gitHubPullRequestDiscovery: [strategyId: Integer],
        gitHubForkDiscovery: [strategyId: Integer, trust: TRUST],
        gitHubTagDiscovery: null,
        headWildcardFilter: FILTER,
    ]
    static final Map GITHUB = [
        id: String, apiUri: String, credentialsId: String, repoOwner: String, repository: String, repositoryUrl: String,
        configuredByUrl: Boolean, traits: GITHUB_TRAITS,
    ]
    static final Map GIT = [
        id: String, remote: String, credentialsId: String, traits: [gitBranchDiscovery: null, gitTagDiscovery: null, headWildcardFilter: FILTER],
    ]
    static final Map STRATEGIES = [
        buildRegularBranches: null,
        buildChangeRequests: [ignoreTargetOnlyChanges: Boolean, ignoreUntrustedChanges: Boolean],
        buildTags: [atLeastDays: String, atMostDays: String],
    ]
    static final Map JOB = [
        displayName: String,
        description: String,
        branchSources: [branchSource: [source: [github: GITHUB, git: GIT], buildStrategies: STRATEGIES]],
        factory: [workflowBranchProjectFactory: [scriptPath: String]],
        orphanedItemStrategy: [discardOldItems: [daysToKeep: Integer, numToKeep: Integer]],
        triggers: [periodicFolderTrigger: [interval: String]],
    ]
    static final Map ITEMS = [folder: [displayName: String, description: String], multibranchPipelineJob: JOB]
}

class Recorder {
    String place
    Map methods
    Map recorded = [:]

    Object invokeMethod(String name, Object given) {
        Object[] arguments = given as Object[]
        require(methods.containsKey(name), "${place}.${name}: no such method")
        require(!recorded.containsKey(name), "${place}.${name}: twice")
        recorded[name] = Recorder.taken("${place}.${name}", methods[name], arguments)
        return null
    }

    static Object taken(String place, Object wanted, Object[] arguments) {
        if (wanted == null) {
            require(arguments.length == 0, "${place}: takes nothing")
            return true
        }
        require(arguments.length == 1, "${place}: takes one argument, not ${arguments.length}")
        if (wanted instanceof Class) {
            require(arguments[0].getClass() == wanted, "${place}: takes a ${wanted.simpleName}, not a ${arguments[0].getClass().simpleName}")
            return arguments[0]
        }
        require(arguments[0] instanceof Closure, "${place}: takes a closure")
        Recorder inside = new Recorder(place: place, methods: wanted)
        Closure body = arguments[0].clone()
        body.delegate = inside
        body.resolveStrategy = Closure.DELEGATE_FIRST
        body.call()
        return inside.recorded
    }

    static void require(boolean holds, Object message) {
        if (!holds) { throw new IllegalArgumentException(message.toString()) }
    }
}

abstract class Items extends Script {
    static final List MADE = []

    Object methodMissing(String kind, Object given) {
        Object[] arguments = given as Object[]
        Recorder.require(Methods.ITEMS.containsKey(kind), "${kind}: no such item")
        Recorder.require(arguments.length == 2 && arguments[0] instanceof String, "${kind}: takes a name and a closure")
        MADE.add([kind: kind, name: arguments[0], body: Recorder.taken(kind, Methods.ITEMS[kind], [arguments[1]] as Object[])])
        return null
    }
}

CompilerConfiguration configuration = new CompilerConfiguration(scriptBaseClass: Items.name)
Map variables = new JsonSlurper().parseText(args[1]) as Map
new GroovyShell(this.class.classLoader, new Binding(variables), configuration).evaluate(new File(args[0]))
println(JsonOutput.toJson(Items.MADE))
