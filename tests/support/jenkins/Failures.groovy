/** A step that says why it failed, without a stack trace: hudson.AbortException. */
class AbortException extends IOException {
    AbortException(String message) { super(message) }
}

/** A step that was stopped from outside: by who aborts the build, by fail-fast, by a newer build at a milestone, by a timeout. */
class FlowInterruptedException extends RuntimeException {
    final String result

    FlowInterruptedException(String result, String message) {
        super(message)
        this.result = result
    }
}

/** The Jenkinsfile cannot be taken: what Jenkins finds when it reads the file, before anything runs. */
class RefusedException extends RuntimeException {
    final List<String> errors

    RefusedException(List<String> errors) {
        super(errors.join('\n'))
        this.errors = errors
    }
}
