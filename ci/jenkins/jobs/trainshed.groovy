// The multibranch job, for Job DSL: controller.yaml runs it with these variables, a seed job can do so too.
//
// REPOSITORY_URL  the repository on GitHub, such as https://github.com/example/diagnosis
// MAIN_BRANCH     its main branch
// FOLDER          the folder of the job
// MAIN_FOLDER     where it is not empty, a folder for the main branch alone: production's credentials are kept there, out of reach
//                 of pull requests and of every other branch, whose authors write their own Jenkinsfile
//
// The job's name is the repository's, so that `jenkins.job` of trainshed.toml is FOLDER/repository.

void multibranch(String folderName, String url, String included, String excluded) {
    List words = url.tokenize('/')
    String account = words[-2]
    String named = words[-1] - ~/\.git$/
    String identity = "trainshed-${folderName.replace('/', '-')}-${named}" // the same for ever: with another one all builds start anew
    String path = "${folderName}/${named}"
    multibranchPipelineJob(path) {
        displayName(named)
        description('Builds ' + url + ' with its Jenkinsfile.')
        branchSources {
            branchSource {
                source {
                    github {
                        id(identity)
                        repositoryUrl(url)
                        configuredByUrl(true)
                        repoOwner(account)
                        repository(named)
                        credentialsId('trainshed-github')
                        traits {
                            gitHubBranchDiscovery {
                                strategyId(1) // not those that are pull requests too
                            }
                            // Merged with the target: what would be on main is what is tried. The target is fetched with it, as
                            // refs/remotes/origin/<target>, and Trainshed takes policy and waivers from there.
                            gitHubPullRequestDiscovery {
                                strategyId(1)
                            }
                            // Nobody is trusted in a fork: its pull request runs the Jenkinsfile of the target branch. Who may write to
                            // the repository can push a branch there instead.
                            gitHubForkDiscovery {
                                strategyId(1)
                                trust {
                                    gitHubTrustNobody()
                                }
                            }
                            headWildcardFilter {
                                includes(included)
                                excludes(excluded)
                            }
                        }
                    }
                    // Any other server, without pull requests, in the place of github { … }:
                    // git {
                    //     id(identity)
                    //     remote(url)
                    //     credentialsId('trainshed-github')
                    //     traits {
                    //         gitBranchDiscovery()
                    //         headWildcardFilter {
                    //             includes(included)
                    //             excludes(excluded)
                    //         }
                    //     }
                    // }
                }
                // Code of a fork would run on the agent, with its engine: only when somebody with Job/Build has read it and starts it.
                buildStrategies {
                    buildRegularBranches()
                    buildChangeRequests {
                        ignoreTargetOnlyChanges(true)
                        ignoreUntrustedChanges(true)
                    }
                }
            }
        }
        factory {
            workflowBranchProjectFactory {
                scriptPath('Jenkinsfile')
            }
        }
        orphanedItemStrategy {
            discardOldItems {
                daysToKeep(14)
                numToKeep(50)
            }
        }
        triggers {
            periodicFolderTrigger {
                interval('1d') // webhooks do the work; this finds what they missed
            }
        }
    }
}

folder(FOLDER) {
    description('Branches and pull requests')
}
multibranch(FOLDER, REPOSITORY_URL, '*', MAIN_FOLDER ? MAIN_BRANCH : '')

if (MAIN_FOLDER) {
    folder(MAIN_FOLDER) {
        description('The main branch, with the credentials of production')
    }
    multibranch(MAIN_FOLDER, REPOSITORY_URL, MAIN_BRANCH, '')
}
