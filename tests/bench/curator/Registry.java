// A registry as Curator has it: members that join, and a CuratorCache that hears of them. For the benchmarks to compare with, and to
// let members join there and at Bellwether in the same way.
//
//   java … Registry CONNECT
//
// Standard input takes one command a line; each has one answer. Stamps are nanoseconds since 1970.
//
//   join PATH NAME N   makes the members NAME-0, NAME-1, … below PATH, all at once   joined NS, the stamp from before the first
//   watch PATH         begins to watch, and has heard of all that is there           watching N
//
// Event, after `watch`: `heard NS`, for one more member. The program ends with its standard input, and its members with it.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.CuratorCacheListener;
import org.apache.curator.retry.ExponentialBackoffRetry;
import org.apache.zookeeper.CreateMode;

public final class Registry {
    private static final PrintStream OUT = new PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.out), false);

    private static void say(String line) {
        synchronized (OUT) {
            OUT.println(line);
            OUT.flush();
        }
    }

    private static long now() {
        Instant now = Instant.now();
        return now.getEpochSecond() * 1_000_000_000L + now.getNano();
    }

    private static void join(CuratorFramework client, String path, String name, int count) throws Exception {
        CountDownLatch answers = new CountDownLatch(count);
        AtomicInteger refused = new AtomicInteger();
        long start = now();
        for (int n = 0; n < count; n++) {
            String member = "{\"id\":\"" + name + "-" + n + "\",\"address\":\"127.0.0.1:1\"}";
            client.create()
                    .withMode(CreateMode.EPHEMERAL_SEQUENTIAL)
                    .inBackground((session, event) -> {
                        if (event.getResultCode() != 0) {
                            refused.incrementAndGet();
                        }
                        answers.countDown();
                    })
                    .forPath(path + "/m_", member.getBytes(StandardCharsets.UTF_8));
        }
        if (!answers.await(60, TimeUnit.SECONDS) || refused.get() > 0) {
            throw new IllegalStateException("not all members were made; refused: " + refused.get());
        }
        say("joined " + start);
    }

    private static void watch(CuratorFramework client, String path) throws Exception {
        if (client.checkExists().forPath(path) == null) {
            client.create().creatingParentsIfNeeded().forPath(path);
        }
        CountDownLatch whole = new CountDownLatch(1);
        AtomicInteger known = new AtomicInteger();
        CuratorCache cache = CuratorCache.build(client, path);
        cache.listenable().addListener(CuratorCacheListener.builder()
                .forInitialized(whole::countDown)
                .forCreates(node -> {
                    long now = now();
                    if (!node.getPath().equals(path)) {
                        known.incrementAndGet();
                        if (whole.getCount() == 0) {
                            say("heard " + now);
                        }
                    }
                })
                .build());
        cache.start();
        if (!whole.await(60, TimeUnit.SECONDS)) {
            throw new IllegalStateException("the cache was not filled in time");
        }
        say("watching " + known.get());
    }

    public static void main(String[] arguments) throws Exception {
        CuratorFramework client =
                CuratorFrameworkFactory.newClient(arguments[0], 30_000, 30_000, new ExponentialBackoffRetry(50, 20, 500));
        client.start();
        if (!client.blockUntilConnected(60, TimeUnit.SECONDS)) {
            throw new IllegalStateException("no connection to " + arguments[0]);
        }
        say("ready");
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            String[] words = line.trim().split(" ");
            try {
                if (words[0].equals("join")) {
                    join(client, words[1], words[2], Integer.parseInt(words[3]));
                } else {
                    watch(client, words[1]);
                }
            } catch (Exception failure) {
                say("failed " + line + ": " + failure);
            }
        }
        // The session, and the members with it, is left to expire unless closed here.
        client.close();
    }
}
