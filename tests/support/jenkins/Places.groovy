/** A place on an agent: one of its executors with a workspace. */
class Place {
    Map agent
    int executor
    File workspace
    String cookie
}

/** The agents of the controller: by label, with so many executors each; every one has a folder of its own. */
class Places {
    private static final long POLL_MILLISECONDS = 20
    private static final int ATTEMPTS = 3
    private final Build build
    private final List<Map> agents
    private final Map<String, List<Integer>> taken = [:]

    Places(Build build) {
        this.build = build
        agents = build.scenario.agents as List<Map>
        agents.each { taken[it.name as String] = [] }
    }

    def use(String label, Closure body) {
        Place place = allocate(label)
        build.log.event('node', agent: place.agent.name, label: label, workspace: place.workspace.path, branch: Strand.current().branch)
        Frame frame = new Frame(place: place, folder: place.workspace, variables: variables(place))
        try {
            return Strand.current().within(frame, body)
        } finally {
            taken[place.agent.name].remove((Object) place.executor)
            List<Map> left = Processes.carrying("JENKINS_NODE_COOKIE=${place.cookie}")
            Processes.end(left, ATTEMPTS)
            build.log.event('node end', agent: place.agent.name, workspace: place.workspace.path, left_running: left)
        }
    }

    private Place allocate(String label) {
        List<Map> fitting = agents.findAll { !label || it.name == label || label in it.labels }
        if (!fitting) { throw new IllegalStateException("there are no agents with the label '${label}': the build would wait for ever") }
        Map agent = null
        while (!agent) {
            Strand.current().check()
            agent = fitting.sort { taken[it.name].size() }.find { taken[it.name].size() < ((it.executors ?: 1) as int) }
            if (!agent) { build.turn.aside { sleep(POLL_MILLISECONDS) } }
        }
        int executor = (0..<100).find { !(it in taken[agent.name]) }
        taken[agent.name].add(executor)
        String job = build.scenario.environment.JOB_NAME.replaceAll('[^A-Za-z0-9.-]', '_') + (executor ? "@${executor + 1}" : '')
        File workspace = new File("${build.scenario.agents_home}/${agent.name}/workspace/${job}")
        prepare(workspace)
        return new Place(agent: agent, executor: executor, workspace: workspace, cookie: UUID.randomUUID().toString())
    }

    private void prepare(File workspace) {
        workspace.mkdirs()
        build.scenario.workspace_files.each { String path, String text ->
            File file = new File(workspace, path)
            if (!file.exists()) {
                file.parentFile.mkdirs()
                file.text = text
                file.executable = text.startsWith('#!')
            }
        }
    }

    private static Map<String, String> variables(Place place) {
        return (place.agent.environment ?: [:]) + [
            NODE_NAME: place.agent.name, NODE_LABELS: ((place.agent.labels ?: []) + [place.agent.name]).join(' '),
            EXECUTOR_NUMBER: place.executor as String, WORKSPACE: place.workspace.path, WORKSPACE_TMP: "${place.workspace.path}@tmp" as String,
            JENKINS_NODE_COOKIE: place.cookie,
        ]
    }
}
