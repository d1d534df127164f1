import java.lang.annotation.ElementType
import java.lang.annotation.Target

/** The annotation by which a Jenkinsfile asks for a shared library. */
@Target([ElementType.LOCAL_VARIABLE, ElementType.PACKAGE, ElementType.TYPE])
@interface Library {
    String[] value()
}
