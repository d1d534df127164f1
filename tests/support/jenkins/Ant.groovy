import java.nio.file.Files
import java.nio.file.StandardCopyOption
import java.util.regex.Pattern

/** Ant's patterns: ** for any folders, * and ? inside a name, several separated by commas; a folder stands for all that it holds. */
class Ant {
    private static final Map<String, String> WILD = ['**/': '(?:.*/)?', '/**': '/.*', '**': '.*', '*': '[^/]*', '?': '[^/]']

    static List<String> matching(File folder, String patterns, String excludes = null) {
        if (!folder.directory) { return [] }
        List<Pattern> wanted = compile(patterns)
        List<Pattern> unwanted = compile(excludes ?: '') + compile('**/.git/**,**/.gitignore,**/.gitattributes,**/*~')
        List<String> found = []
        folder.eachFileRecurse(groovy.io.FileType.FILES) { file ->
            String path = folder.toPath().relativize(file.toPath())
            if (wanted.any { path ==~ it } && !unwanted.any { path ==~ it }) { found.add(path) }
        }
        return found.sort()
    }

    static void copy(File source, Collection<String> paths, File target) {
        for (String path in paths) {
            File to = new File(target, path)
            to.parentFile.mkdirs()
            Files.copy(new File(source, path).toPath(), to.toPath(), StandardCopyOption.REPLACE_EXISTING, StandardCopyOption.COPY_ATTRIBUTES)
        }
    }

    private static List<Pattern> compile(String patterns) {
        return patterns.split(',')*.trim().findAll().collect { Pattern.compile(it.endsWith('/') ? regex(it + '**') : regex(it)) }
    }

    private static String regex(String pattern) {
        List<String> tokens = (pattern =~ '\\*\\*/|/\\*\\*|\\*\\*|\\*|\\?|[^*?/]+|/').collect { it as String }
        return tokens.collect { WILD[it] ?: Pattern.quote(it) }.join('')
    }
}
