/** The store of credentials, and what binds them: withCredentials. */
class Credentials {
    private static final Map<String, Map> KINDS = [
        string: [of: 'string', needs: ['variable', 'credentialsId']],
        file: [of: 'file', needs: ['variable', 'credentialsId']],
        usernamePassword: [of: 'username-password', needs: ['usernameVariable', 'passwordVariable', 'credentialsId']],
    ]
    private final Build build

    Credentials(Build build) { this.build = build }

    def bind(List<Describable> bindings, Closure body) {
        List<File> files = []
        Frame frame = new Frame()
        try {
            for (Describable binding in bindings) {
                add(binding, frame, files)
                build.log.event('bind', id: binding.given.credentialsId, type: binding.symbol, branch: Strand.current().branch, stage: Strand.current().stage,
                                variables: binding.given.findAll { it.key != 'credentialsId' }.values() as List)
            }
            build.secrets.addAll(frame.secrets)
            return Strand.current().within(frame, body)
        } finally {
            files.each { it.parentFile.deleteDir() }
            if (bindings) { build.log.event('unbind', ids: bindings*.given*.credentialsId, files_left: files.findAll { it.exists() }*.path) }
        }
    }

    private void add(Describable binding, Frame frame, List<File> files) {
        Map kind = KINDS[binding.symbol]
        if (!kind || (binding.given.keySet() as Set) != (kind.needs as Set)) {
            throw new IllegalArgumentException("no binding: ${binding.symbol}${binding.given}")
        }
        String id = binding.given.credentialsId
        Map stored = build.scenario.credentials[id] as Map
        if (!stored) { throw new AbortException("Could not find credentials entry with ID '${id}'") }
        if (stored.kind != kind.of) { throw new AbortException("Credentials '${id}' is of type '${stored.kind}' where '${kind.of}' was expected") }
        if (binding.symbol == 'string') {
            frame.variables[binding.given.variable] = stored.secret
            frame.secrets.add(stored.secret)
        } else if (binding.symbol == 'file') {
            File file = new File("${Strand.current().place.workspace.path}@tmp/secretFiles/${UUID.randomUUID()}/${id}")
            file.parentFile.mkdirs()
            file.text = stored.secret
            files.add(file)
            frame.variables[binding.given.variable] = file.path
            frame.secrets.add(file.path)
        } else {
            frame.variables[binding.given.usernameVariable] = stored.username
            frame.variables[binding.given.passwordVariable] = stored.secret
            frame.secrets.add(stored.secret)
        }
    }
}
