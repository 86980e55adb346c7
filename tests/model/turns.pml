/* turns.pml: nobody fences anybody in turns.
 *
 * Two processes, each with a transactional producer, each with a partition of its own that Kafka is owed one event of.
 * As it stands: both run under one worker id, so that each InitTransactions fences the other's producer; the second one starts while the first works.
 * The first must find in Postgres that it was replaced, and stop; while Postgres is away (once) it can't, and renews. The partitions of a process that has
 * stopped go to the other.
 * -DTWO_IDS: two workers, live members both, on a broker whose pending offsets are the whole group's (kfake): a look waits for the other's transaction. Only those
 * that are no members may be fenced.
 * There are no faults but those, so every fair run must come to its end: engine/pipeline.go renew, internal/admin/fence.go FenceAbsent.
 */
#define N 2
mtype:state = { starting, registered, looking, ready, staged, renewing, checked, stopped, done };

mtype:state st[N] = starting;
byte current = 2;                        /* workers: whose incarnation is registered */
byte newest = 2;                         /* one id: whose producer epoch is the newest */
bool fenced[N], pending[N], published[N];
bool away, was;                          /* Postgres is, and was already */
bool mine[N];                            /* publishes the other's partition too, the other having stopped */

#define finished (published[0] && published[1])
#ifdef TWO_IDS
#define valid(w) (!fenced[w])
#else
#define valid(w) (newest == w)
#endif

proctype Worker(byte w) {
  do
  :: atomic { st[w] == starting -> current = w; st[w] = registered }
  :: atomic { st[w] == registered ->
#ifndef TWO_IDS
       if :: newest < 2 -> pending[newest] = false :: else fi; newest = w;           /* InitTransactions, once it has registered itself */
#endif
       st[w] = looking }
  :: atomic { st[w] == looking && !pending[1-w] -> st[w] = ready }
#ifdef TWO_IDS
#ifdef NO_MEMBERS
  :: atomic { st[w] == looking && pending[1-w] -> pending[1-w] = false; fenced[1-w] = true }
#endif
#endif
  :: atomic { st[w] == ready && (!published[w] || (mine[w] && !published[1-w])) ->
       if :: valid(w) -> pending[w] = true; st[w] = staged :: else -> st[w] = renewing fi }
  :: atomic { st[w] == staged ->
       if
       :: valid(w) && pending[w] -> pending[w] = false; st[w] = ready; if :: !published[w] -> published[w] = true :: else -> published[1-w] = true fi
       :: else -> st[w] = renewing
       fi }
  :: atomic { st[w] == renewing ->                                                  /* INCARNATION: fenced by whom? */
#ifdef NO_INCARNATION
       st[w] = checked
#else
#ifdef TWO_IDS
       st[w] = checked
#else
       if :: !away && current != w -> st[w] = stopped; mine[1-w] = true; break :: else -> st[w] = checked fi
#endif
#endif
     }
  :: atomic { st[w] == checked ->                                                   /* MEMBERS: a live one is fenced by nobody but its own successor */
       pending[w] = false;
#ifdef TWO_IDS
       fenced[w] = false;
#else
       pending[1-w] = false; newest = w;
#endif
       st[w] = looking }
  :: atomic { finished -> st[w] = done; break }
  od
}

proctype Postgres() {
  do
  :: atomic { !was -> was = true; away = true }
  :: atomic { away -> away = false }
  :: atomic { finished && !away -> break }
  od
}

init { atomic { run Worker(0); run Worker(1);
#ifndef TWO_IDS
  run Postgres()
#endif
} }
