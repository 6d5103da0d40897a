// Candidates made of Curator's recipes, for the tests and benchmarks to compare with and to share an election with.
//
//   java … Peer RECIPE CONNECT PATH SESSION_TIMEOUT_MS NAME COUNT
//
// RECIPE is `latch` (LeaderLatch) or `selector` (LeaderSelector). The candidates NAME-0, NAME-1, … have a session each, as
// in programs of their own. They begin at once. Standard input takes one command a line; each has one answer, and what
// happens is told as it happens. Stamps are nanoseconds of CLOCK_MONOTONIC.
//
//   resign ID     the leader ID gives up and joins again, behind the others    (no answer; see the events)
//   close ID      ID leaves                                                    closed ID
//   open ID       ID, which has left, joins again                              opened ID
//   leads         who leads by its own account, and in which of its terms      leads ID:TERM …
//   participants  whom the recipe believes to take part; a star leads          participants ID* ID …
//   count         how many znodes the election has                             count N
//
// Events: `ready`, `elected ID NS`, `demoted ID NS`. The program ends with its standard input.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderLatchListener;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.leader.Participant;
import org.apache.curator.retry.ExponentialBackoffRetry;

public final class Peer {
    private static final PrintStream OUT = new PrintStream(new java.io.FileOutputStream(java.io.FileDescriptor.out), false);

    private static void say(String line) {
        synchronized (OUT) {
            OUT.println(line);
            OUT.flush();
        }
    }

    /** One candidate, whichever the recipe. */
    private abstract static class Candidate {
        final String id;
        final CuratorFramework client;
        private volatile int terms;
        private volatile boolean told;

        Candidate(String id, CuratorFramework client) {
            this.id = id;
            this.client = client;
        }

        abstract void open() throws Exception;

        abstract void close() throws Exception;

        abstract void resign() throws Exception;

        abstract boolean hasLeadership();

        abstract Collection<Participant> participants() throws Exception;

        /** Whether it leads and has been told so: before that, its term has no number. */
        boolean leads() {
            return told && hasLeadership();
        }

        int term() {
            return terms;
        }

        void elected() {
            long now = System.nanoTime();
            terms++;
            told = true;
            say("elected " + id + " " + now);
        }

        void demoted() {
            told = false;
            say("demoted " + id + " " + System.nanoTime());
        }
    }

    private static final class LatchCandidate extends Candidate {
        private final String path;
        private volatile LeaderLatch latch;

        LatchCandidate(String id, CuratorFramework client, String path) {
            super(id, client);
            this.path = path;
        }

        @Override
        void open() throws Exception {
            LeaderLatch fresh = new LeaderLatch(client, path, id, LeaderLatch.CloseMode.NOTIFY_LEADER);
            fresh.addListener(new LeaderLatchListener() {
                @Override
                public void isLeader() {
                    elected();
                }

                @Override
                public void notLeader() {
                    demoted();
                }
            });
            latch = fresh;
            fresh.start();
        }

        @Override
        void close() throws Exception {
            latch.close();
        }

        @Override
        void resign() throws Exception {
            close();
            open();
        }

        @Override
        boolean hasLeadership() {
            return latch.hasLeadership();
        }

        @Override
        Collection<Participant> participants() throws Exception {
            return latch.getParticipants();
        }
    }

    private static final class SelectorCandidate extends Candidate {
        private final String path;
        private final Semaphore released = new Semaphore(0);
        private volatile LeaderSelector selector;

        SelectorCandidate(String id, CuratorFramework client, String path) {
            super(id, client);
            this.path = path;
        }

        @Override
        void open() {
            selector = new LeaderSelector(client, path, new LeaderSelectorListenerAdapter() {
                @Override
                public void takeLeadership(CuratorFramework client) throws InterruptedException {
                    elected();
                    try {
                        released.acquire();
                    } finally {
                        demoted();
                    }
                }
            });
            selector.setId(id);
            selector.autoRequeue();
            selector.start();
        }

        @Override
        void close() {
            selector.close();
        }

        @Override
        void resign() {
            released.release();
        }

        @Override
        boolean hasLeadership() {
            return selector.hasLeadership();
        }

        @Override
        Collection<Participant> participants() throws Exception {
            return selector.getParticipants();
        }
    }

    private static void obey(String line, Map<String, Candidate> candidates, String path) throws Exception {
        String[] words = line.trim().split(" ");
        Candidate first = candidates.values().iterator().next();
        Candidate named = words.length > 1 ? candidates.get(words[1]) : first;
        if (named == null) {
            throw new IllegalArgumentException("no candidate " + words[1]);
        }
        switch (words[0]) {
            case "resign":
                named.resign();
                break;
            case "close":
                named.close();
                say("closed " + named.id);
                break;
            case "open":
                named.open();
                say("opened " + named.id);
                break;
            case "leads": {
                StringBuilder text = new StringBuilder("leads");
                for (Candidate one : candidates.values()) {
                    if (one.leads()) {
                        text.append(' ').append(one.id).append(':').append(one.term());
                    }
                }
                say(text.toString());
                break;
            }
            case "participants": {
                List<String> found = new ArrayList<>();
                for (Participant one : named.participants()) {
                    found.add(one.getId() + (one.isLeader() ? "*" : ""));
                }
                say("participants " + String.join(" ", found));
                break;
            }
            case "count":
                say("count " + first.client.getChildren().forPath(path).size());
                break;
            default:
                throw new IllegalArgumentException("no such command: " + line);
        }
    }

    public static void main(String[] arguments) throws Exception {
        String recipe = arguments[0];
        String connect = arguments[1];
        String path = arguments[2];
        int timeout = Integer.parseInt(arguments[3]);
        Map<String, Candidate> candidates = new LinkedHashMap<>();
        for (int n = 0; n < Integer.parseInt(arguments[5]); n++) {
            String id = arguments[4] + "-" + n;
            CuratorFramework client =
                    CuratorFrameworkFactory.newClient(connect, timeout, timeout, new ExponentialBackoffRetry(50, 20, 500));
            client.start();
            if (!client.blockUntilConnected(60, TimeUnit.SECONDS)) {
                throw new IllegalStateException("no connection to " + connect);
            }
            Candidate candidate = recipe.equals("latch")
                    ? new LatchCandidate(id, client, path)
                    : new SelectorCandidate(id, client, path);
            candidates.put(id, candidate);
            candidate.open();
        }
        say("ready");
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            try {
                obey(line, candidates, path);
            } catch (Exception failure) {
                say("failed " + line + ": " + failure);
            }
        }
        // Sessions are left to expire: whoever lets go of this program is done with the server.
        Runtime.getRuntime().halt(0);
    }
}
