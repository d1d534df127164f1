import java.nio.file.NoSuchFileException

/** Steps on the files of a workspace. */
class FileSteps {
    private final Build build
    private final Map<String, File> stashes = [:]

    FileSteps(Build build) { this.build = build }

    Map<String, Step> all() {
        return Steps.named(
            dir: [sole: 'path', required: ['path'], body: true, workspace: true,
                  act: { Map given, Closure body -> Strand.current().within(new Frame(folder: file(given.path)), body) }],
            deleteDir: [workspace: true, act: { Map given -> Strand.current().folder.deleteDir() }],
            fileExists: [sole: 'file', required: ['file'], workspace: true, act: { Map given -> file(given.file).exists() }],
            readFile: [sole: 'file', required: ['file'], optional: ['encoding'], workspace: true, act: { Map given -> read(file(given.file)) }],
            writeFile: [required: ['file', 'text'], optional: ['encoding'], workspace: true, act: { Map given -> write(file(given.file), given.text as String) }],
            stash: [required: ['name'], optional: ['includes', 'excludes', 'allowEmpty', 'useDefaultExcludes'], workspace: true,
                    act: { Map given -> stash(given) }],
            unstash: [sole: 'name', required: ['name'], workspace: true, act: { Map given -> unstash(given.name as String) }],
        )
    }

    private static File file(Object path) { new File(path as String).absolute ? new File(path as String) : new File(Strand.current().folder, path as String) }

    private static String read(File file) {
        if (!file.file) { throw new NoSuchFileException(file.path) }
        return file.getText('UTF-8')
    }

    private static void write(File file, String text) {
        file.parentFile.mkdirs()
        file.setText(text, 'UTF-8')
    }

    private void stash(Map given) {
        File folder = Strand.current().folder
        List<String> found = Ant.matching(folder, given.includes as String ?: '**', given.excludes as String)
        if (!found && !given.allowEmpty) { throw new AbortException("No files included in stash '${given.name}'") }
        File kept = new File("${build.scenario.home}/stashes/${stashes.size()}")
        kept.deleteDir()
        Ant.copy(folder, found, kept)
        stashes[given.name as String] = kept
        build.log.event('stash', name: given.name, files: found, workspace: Strand.current().place.workspace.path)
    }

    private void unstash(String name) {
        File kept = stashes[name]
        if (!kept) { throw new AbortException("No such saved stash '${name}'") }
        List<String> found = Ant.matching(kept, '**')
        Ant.copy(kept, found, Strand.current().folder)
        build.log.event('unstash', name: name, files: found, workspace: Strand.current().place.workspace.path)
    }
}
