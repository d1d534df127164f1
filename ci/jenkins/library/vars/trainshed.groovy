// Written from the Jenkinsfile by scripts/_library.py: change it there.
// A repository's whole Jenkinsfile:   @Library('trainshed') _
//                                     trainshed(environment: 'dev')
def call(Map given = [:]) {
    pipeline {
        agent { label env.AGENT_LABEL ?: '' }
        options {
            disableConcurrentBuilds(abortPrevious: env.CHANGE_ID != null)
            buildDiscarder(logRotator(numToKeepStr: '50'))
            timeout(time: 12, unit: 'HOURS')
        }
        triggers { cron(!env.CHANGE_ID && (env.BRANCH_IS_PRIMARY == 'true' || env.BRANCH_NAME == (env.TRAINSHED_MAIN_BRANCH ?: 'main')) ? 'H 3 * * *' : '') }
        parameters {
            string(name: 'ENVIRONMENT', defaultValue: given.environment ?: 'local', description: 'environment of trainshed.toml')
            string(name: 'COMPONENTS', defaultValue: '', description: 'components to make, by name; empty: all')
            string(name: 'PIPELINES', defaultValue: '', description: 'pipelines to stamp, upload and launch, by name; empty: all')
            booleanParam(name: 'LAUNCH', defaultValue: false, description: 'start training runs')
            text(name: 'LAUNCH_PARAMETERS', defaultValue: '', description: 'parameters of the runs, as YAML')
            booleanParam(name: 'WAIT', defaultValue: false, description: 'follow runs and rollouts to their end')
            text(name: 'GATES', defaultValue: '', description: 'what must hold of a run, a line each, such as auc >= 0.80')
            booleanParam(name: 'DEPLOY', defaultValue: false, description: 'deploy the services')
            choice(name: 'RELEASE_BUMP', choices: ['auto', 'patch', 'minor', 'major', 'none'], description: 'main only; auto: by the commits')
            string(name: 'FANOUT_LABEL', defaultValue: '', description: 'label of agents, one for each component; empty: all on one')
            booleanParam(name: 'FAIL_FAST', defaultValue: false, description: 'stop all branches at the first failure')
        }
        environment {
            CI = 'true'
            TRAINSHED_ENV = "${env.CHANGE_FORK ? 'local' : params.ENVIRONMENT}"
            TRAINSHED_PROJECT_WORK_DIR = 'build'
        }
        stages {
            stage('plan') {
                steps {
                    script {
                        dir('build') { deleteDir() }
                        toolkit('plan', '-- $COMPONENTS')
                    }
                }
            }
            stage('images') {
                steps { script { images() } }
            }
            stage('stamp and verify') {
                when { expression { pipelines() } }
                steps {
                    script {
                        toolkit('stamp', '-- $PIPELINES')
                        toolkit('verify', '-- $PIPELINES')
                    }
                }
            }
            stage('upload') { // an older build of the main branch that comes to a milestone after a newer one ends there
                when { expression { pipelines() && !env.CHANGE_FORK } }
                steps {
                    script {
                        if (primary()) { milestone(1) }
                        toolkit('upload', '-- $PIPELINES')
                        if (primary()) { toolkit('schedule', '-- $PIPELINES') }
                    }
                }
            }
            stage('launch') {
                when { expression { pipelines() && !env.CHANGE_FORK && params.LAUNCH } }
                steps {
                    script {
                        writeFile(file: 'build/parameters.yaml', text: params.LAUNCH_PARAMETERS)
                        toolkit('launch', "--params build/parameters.yaml --gate \"\$GATES\" ${params.WAIT ? '--wait' : ''} -- \$PIPELINES")
                    }
                }
            }
            stage('deploy') {
                when { expression { pipelines() && !env.CHANGE_FORK && params.DEPLOY } }
                steps { script { toolkit('deploy', params.WAIT ? '--wait' : '') } }
            }
            stage('release') {
                when { expression { primary() && pipelines() && !params.PIPELINES && params.RELEASE_BUMP != 'none' && fileExists('scripts/release') } }
                steps {
                    script {
                        milestone(2)
                        toolkit('release', "--bump '${params.RELEASE_BUMP}'", ' --release') // $RELEASE_BUMP is unset in a branch's first build
                    }
                }
            }
        }
        post {
            always { script { report() } }
            cleanup { script { end() } }
        }
    }
}

// The repository's own script of a stage; where there is none, the agent's command. By exec, so that an abort waits for its end.
String command(String stage) {
    return "exec ${fileExists("scripts/${stage}") ? "scripts/${stage}" : "trainshed ${stage}"}"
}

boolean primary() {
    List names = (env.TRAINSHED_MAIN_BRANCH ?: 'main master').tokenize(' ')
    return !env.CHANGE_ID && !env.TAG_NAME && (env.BRANCH_IS_PRIMARY == 'true' || names.contains(env.BRANCH_NAME))
}

boolean timer() {
    return !currentBuild.getBuildCauses('hudson.triggers.TimerTrigger$TimerTriggerCause').isEmpty()
}

// The timer looks for stale bases and scans again; who asks for some components alone wants no pipeline.
boolean pipelines() {
    return !timer() && (params.PIPELINES || !params.COMPONENTS)
}

List lines(String stage, String arguments) {
    return sh(label: stage, returnStdout: true, script: "${command(stage)} ${arguments}").tokenize('\n')
}

void toolkit(String stage, String arguments, String also = '') {
    access(also) { sh(label: stage, script: "${command(stage)} ${arguments}") }
}

// Bind by name what the toolkit tells for the environment, nothing of production to a pull request. A fork's scripts could name anything: not asked.
void access(String also = '', Closure body) {
    List bound = []
    for (String line in (env.CHANGE_FORK ? [] : lines('jenkins', "bindings${also}"))) {
        List words = line.tokenize(' ')
        if (words[0] == 'string') {
            bound.add(string(variable: words[1], credentialsId: words[2]))
        } else if (words[0] == 'file') {
            bound.add(file(variable: words[1], credentialsId: words[2]))
        } else {
            bound.add(usernamePassword(usernameVariable: words[1] + '_USR', passwordVariable: words[1] + '_PSW', credentialsId: words[2]))
        }
    }
    withCredentials(bound) { body() }
}

// A branch for each component that has work, bases first; then all at once, which finds them done and writes the lock.
void images() {
    String label = env.CHANGE_FORK ? '' : params.FANOUT_LABEL
    List waves = [], stashed = []
    access { waves = lines('plan', "--branches ${label ? '--distributed' : ''} -- \$COMPONENTS") }
    try {
        for (String wave in waves) {
            Map branches = [failFast: params.FAIL_FAST]
            for (String name in wave.tokenize(' ')) {
                String component = name
                branches[component] = { label ? branch(component, label, stashed) : toolkit('images', "--alone -- '${component}'") }
            }
            // What stands on a base that failed ends at once; what stands on others is made.
            if (params.FAIL_FAST) { parallel(branches) } else { catchError(catchInterruptions: false) { parallel(branches) } }
        }
    } finally {
        for (String component in stashed) { unstash("images-${component}") }
    }
    if (currentBuild.currentResult == 'FAILURE') { error('a component failed: see its branch') }
    toolkit('images', '-- $COMPONENTS')
}

void branch(String component, String label, List stashed) {
    node(label) {
        checkout(scm)
        dir('build') { deleteDir() }
        try {
            toolkit('images', "--alone -- '${component}'")
        } finally {
            stash(name: "images-${component}", includes: 'build/records/**,build/logs/**,build/reports/sbom/**', allowEmpty: true)
            stashed.add(component)
            end()
        }
    }
}

void report() {
    if (!fileExists('build/records')) { return }
    try {
        currentBuild.description = sh(label: 'report', returnStdout: true, script: command('report')).trim()
    } finally {
        archiveArtifacts(artifacts: 'build/images.lock.json,build/manifest.json', fingerprint: true, allowEmptyArchive: true)
        archiveArtifacts(artifacts: 'build/records/**,build/reports/**,build/logs/**,build/pipelines/**,build/release/**', allowEmptyArchive: true)
    }
    junit(testResults: 'build/reports/junit.xml', allowEmptyResults: true, skipMarkingBuildUnstable: true)
    ifInstalled { recordIssues(enabledForFailure: true, skipPublishingChecks: true, tools: [sarif(pattern: 'build/reports/findings.sarif')]) }
    ifInstalled { publishHTML([reportDir: 'build/reports', reportFiles: 'report.html', reportName: 'Trainshed',
                               allowMissing: true, keepAll: true, alwaysLinkToLastBuild: true]) }
    ifInstalled { publishChecks(name: 'Trainshed', title: currentBuild.currentResult, summary: readFile('build/reports/summary.md'),
                                conclusion: currentBuild.currentResult == 'SUCCESS' ? 'SUCCESS' : 'FAILURE') }
}

// What is embedded (an engine too, where the agent has none) ends with the build; what it holds stays in the workspace.
void end() {
    sh(label: 'local down', script: "${command('local')} down")
}

// Steps of plugins that a controller may lack.
void ifInstalled(Closure body) {
    try {
        body()
    } catch (NoSuchMethodError missing) {
        echo("not installed: ${missing.message.split(' found')[0]}") // and not the hundreds of steps that there are
    }
}
