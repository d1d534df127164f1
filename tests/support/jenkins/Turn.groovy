import java.util.concurrent.locks.ReentrantLock

/** One thread of the pipeline runs at a time, as on Jenkins; who waits for something outside lets the others run. */
class Turn {
    private final ReentrantLock lock = new ReentrantLock(true)

    void take() { lock.lock() }

    void leave() { lock.unlock() }

    def aside(Closure waiting) {
        leave()
        try {
            return waiting()
        } finally {
            take()
        }
    }
}
