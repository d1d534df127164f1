import groovy.json.JsonOutput

/** The event log, JSON lines, written through at once: what a test reads. */
class Log {
    private final Writer out

    Log(File file) { out = file.newWriter('UTF-8') }

    synchronized void event(Map<String, ?> fields, String kind) {
        out.write(JsonOutput.toJson([kind: kind] + fields) + '\n')
        out.flush()
    }

    synchronized void close() { out.close() }
}
