import java.security.MessageDigest

/** Jenkins' fingerprints, and the cookie of a workspace. */
class Md5 {
    static String of(byte[] content) { MessageDigest.getInstance('MD5').digest(content).encodeHex() }
}
