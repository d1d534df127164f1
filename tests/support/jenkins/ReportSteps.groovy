import groovy.json.JsonSlurper

/** Steps that publish: junit and archiveArtifacts, and those of plugins that a controller may lack. */
class ReportSteps {
    private static final int FRESH_MILLISECONDS = 3000
    private static final List<String> CONCLUSIONS = ['NONE', 'ACTION_REQUIRED', 'SKIPPED', 'CANCELED', 'TIME_OUT', 'FAILURE', 'NEUTRAL', 'SUCCESS']
    private final Build build

    ReportSteps(Build build) { this.build = build }

    Map<String, Step> all() {
        return Steps.named(
            junit: [sole: 'testResults', required: ['testResults'], optional: ['allowEmptyResults', 'skipMarkingBuildUnstable', 'skipPublishingChecks'],
                    workspace: true, act: { Map given -> junit(given) }],
            archiveArtifacts: [sole: 'artifacts', required: ['artifacts'], optional: ['allowEmptyArchive', 'fingerprint', 'excludes', 'onlyIfSuccessful'],
                               workspace: true, act: { Map given -> archive(given) }],
            recordIssues: [required: ['tools'], optional: ['enabledForFailure', 'skipPublishingChecks', 'qualityGates'], workspace: true, plugin: 'warnings-ng',
                           act: { Map given -> issues(given) }],
            publishHTML: [required: ['reportDir', 'reportFiles', 'reportName', 'allowMissing', 'keepAll', 'alwaysLinkToLastBuild'], workspace: true,
                          plugin: 'htmlpublisher', act: { Map given -> html(given) }],
            publishChecks: [required: ['name'], optional: ['title', 'summary', 'text', 'detailsURL', 'status', 'conclusion'], plugin: 'checks-api',
                            act: { Map given -> checks(given) }],
        )
    }

    private Map junit(Map given) {
        File folder = Strand.current().folder
        List<String> found = Ant.matching(folder, given.testResults as String)
        if (!found && !given.allowEmptyResults) { throw new AbortException('No test report files were found. Configuration error?') }
        if (found && found.every { new File(folder, it).lastModified() < build.began - FRESH_MILLISECONDS }) {
            throw new AbortException('Test reports were found but none of them are new.')
        }
        List cases = found.collectMany { new XmlSlurper().parse(new File(folder, it)).depthFirst().findAll { it.name() == 'testcase' } }
        List failed = cases.findAll { it.failure.size() || it.error.size() }
        build.log.event('junit', files: found, total: cases.size(), failed: failed.collect { "${it.@classname}.${it.@name}" as String })
        if (failed && !given.skipMarkingBuildUnstable) { build.result = 'UNSTABLE' }
        return [totalCount: cases.size(), failCount: failed.size()]
    }

    private void archive(Map given) {
        File folder = Strand.current().folder
        List<String> found = Ant.matching(folder, given.artifacts as String, given.excludes as String)
        if (!found && !given.allowEmptyArchive) { throw new AbortException("No artifacts found that match the file pattern \"${given.artifacts}\"") }
        Ant.copy(folder, found, new File("${build.scenario.home}/archive"))
        build.log.event('archive', files: found, fingerprints: given.fingerprint ? found.collectEntries { [it, Md5.of(new File(folder, it).bytes)] } : [:])
    }

    private void issues(Map given) {
        File folder = Strand.current().folder
        for (Describable tool in given.tools) {
            if (tool.symbol != 'sarif') { throw new IllegalArgumentException("no tool: ${tool.symbol}") }
            List<String> found = Ant.matching(folder, tool.given.pattern as String)
            List results = found.collectMany { new JsonSlurper().parse(new File(folder, it)).runs*.results.flatten() }
            boolean shown = given.enabledForFailure || build.currentResult in ['SUCCESS', 'UNSTABLE']
            build.log.event('issues', tool: tool.symbol, files: found, total: results.size(), recorded: shown)
        }
    }

    private void html(Map given) {
        File folder = new File(Strand.current().folder, given.reportDir as String)
        List<String> found = Ant.matching(folder, given.reportFiles as String)
        if (!found && !given.allowMissing) { throw new AbortException("Specified HTML directory '${folder}' does not exist.") }
        build.log.event('html', name: given.reportName, files: found)
    }

    private void checks(Map given) {
        if (given.conclusion && !(given.conclusion in CONCLUSIONS)) { throw new IllegalArgumentException("no conclusion: ${given.conclusion}") }
        build.log.event(given, 'checks')
    }
}
