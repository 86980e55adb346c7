/* base.pml: one source partition, two workers, every call that engine makes beside its loop under way on its own.
 *
 * A worker is the states of engine/machine.go. Under way beside it: a claim, a look, a capture (asked, then with the row's lock and its COMMIT
 * sent, then answered, or its answer lost), a Kafka transaction (begun, offset staged, ended), and the poll with its rebalance callbacks.
 * Faults: a worker is killed (and started again), frozen or evicted while it works on, a rebalance moves the partition, a transaction is
 * aborted or times out at the broker, a capture's answer is lost, and with it the capture or not.
 *
 * Events and rows are not listed one by one: both are prefixes, checked where one is written. A write that begins before the prefix's end
 * would be a duplicate, one that begins after it a hole; the first such write ends the search.
 * Epochs, generations and lives only ever rise and are only compared for equality, so each holder has a bit: still the newest, or not.
 */
#define W 2                              /* workers */
#ifndef N
#define N 2                              /* records in the partition */
#endif
#ifndef FAULTS
#define FAULTS 2
#endif
#define NOBODY W

mtype:state = { unassigned, claiming, looking, working, withdrawing, noProducer, dead };   /* working: draining or consuming */
mtype:call  = { idle, asked, answered, locked };
mtype:txn   = { none, begun, staged };
mtype:note  = { nothing, assigned, unchanged, revoked, revoking };                              /* revoking: the callback runs */

/* Postgres */
byte pgNext;                             /* next_offset */
byte outbox;                             /* bit r: with whose bytes record r was captured */
byte holder = NOBODY, hFrom; bool hMine; /* whose capture has the row's lock, its COMMIT sent */
byte lateClaims;                         /* claims under way of lives that are over */

/* Kafka: the group, the transaction coordinator */
byte kfNext;                             /* group offset; events are visible for exactly the records before it */
byte owner = 0;
bool member[W] = true, due;              /* due: the group is to rebalance */
mtype:note note[W] = unchanged; bool evicted[W];
bool pending[W]; byte pFrom[W], pTo[W], pBytes[W];
bool fenced[W];                          /* w's producer epoch is no longer the newest */
byte faults;

/* What each worker knows */
mtype:state st[W] = unassigned;
bool mine[W];                            /* the row's epoch is that of w's claim */
bool doubt[W];                           /* under that claim Kafka was found ahead */
bool has[W];                             /* the last callback's assignment holds the partition */
bool stamped[W], fresh[W], paused[W];    /* there is a stamp; it is the group's present generation and member */
bool up[W] = true;                       /* there is a producer */
byte next[W], pub[W], mem[W];            /* next to capture, next to publish; bytes in memory of those between */
mtype:call look[W] = idle; byte seen[W];
mtype:call cap[W] = idle; byte cFrom[W]; bool cMine[W], cLive[W];
mtype:txn txn[W] = none; byte tTo[W]; bool tFresh[W], tLive[W], cancel[W];
byte tFrom[W], tBytes[W];

hidden byte r;
hidden byte duplicate_row, hole_in_rows, captured_by_former_owner, duplicate_event, lost_event, kafka_ahead, other_bytes, stopped_without_cause;

#define fault      faults < FAULTS -> faults++
#define finished   (pgNext == N && kfNext == N)
#define bit(s, r)  ((s >> (r)) & 1)

/* ---- what the stores do ---- */

inline drop(a) { pending[a] = false; pFrom[a] = 0; pTo[a] = 0; pBytes[a] = 0 }
inline fence(b) { drop(b); fenced[b] = true }
inline commitKafka(w) {                  /* events and offset become visible together */
  d_step {
    duplicate_event = pFrom[w] < kfNext; assert(!duplicate_event);
    lost_event = pFrom[w] > kfNext;      assert(!lost_event);
    kafka_ahead = pTo[w] > pgNext;       assert(!kafka_ahead);
    r = pFrom[w];
    do
    :: r < pTo[w] -> other_bytes = bit(pBytes[w], r) != bit(outbox, r); assert(!other_bytes); r++
    :: else -> break
    od;
    kfNext = pTo[w]; drop(w) }
}

inline unlock() { holder = NOBODY; hFrom = 0; hMine = false }
inline commitPostgres(w) {
  d_step {
    duplicate_row = hFrom < pgNext; assert(!duplicate_row);
    hole_in_rows = hFrom > pgNext;  assert(!hole_in_rows);
#ifndef ROWS_ONLY
    captured_by_former_owner = !hMine; assert(!captured_by_former_owner);
#endif
    outbox = outbox | (w << pgNext); pgNext++; unlock() }
}
inline raiseEpoch() { mine[0] = false; mine[1] = false; hMine = false; cMine[0] = false; cMine[1] = false }
inline newGeneration() { fresh[0] = false; fresh[1] = false; tFresh[0] = false; tFresh[1] = false }

/* ---- giving a partition up: engine/machine.go withdraw, engine/actions.go withdraw ---- */

inline forget(w) { next[w] = 0; pub[w] = 0; mem[w] = 0 }
inline over(w) { cap[w] = idle; cFrom[w] = 0; cMine[w] = false; cLive[w] = false }
inline ended(w) { txn[w] = none; tFrom[w] = 0; tTo[w] = 0; tBytes[w] = 0; tFresh[w] = false; tLive[w] = false; cancel[w] = false }

inline withdrawn(w) {
  if
  :: !has[w] -> st[w] = unassigned; doubt[w] = false; if :: note[w] == revoking -> note[w] = nothing; due = true :: else fi
#ifdef NO_RECLAIM
  :: has[w] -> st[w] = unassigned
#else
  :: has[w] && up[w] -> st[w] = claiming                                                    /* RECLAIM: still assigned, so again from claim */
  :: has[w] && !up[w] -> st[w] = noProducer
#endif
  fi
}
inline withdraw(w, abort) {
  if :: st[w] == claiming && lateClaims < 2 -> lateClaims++ :: else fi;                    /* that call goes on without us */
#ifndef NO_LIVES
  look[w] = idle; seen[w] = 0;                                                           /* LIVES: what comes back of an older life is for nobody */
#endif
  cLive[w] = false; tLive[w] = false;
  forget(w);
  if
#ifndef NO_GUARD_3
  :: txn[w] != none -> st[w] = withdrawing; cancel[w] = cancel[w] || abort                  /* GUARD 3: until nothing of it is in an open transaction */
#endif
  :: else -> withdrawn(w)
  fi
}
inline keep(w) { mem[w] = (mem[w] & ~(1 << next[w])) | (w << next[w]); next[w]++ }
inline unknown(w) {                      /* GUARD 9: the capture's outcome, so everything in memory goes; the next claim tells */
#ifdef NO_GUARD_9
  if :: cLive[w] -> keep(w) :: else fi; over(w)
#else
  over(w); if :: st[w] == looking || st[w] == working -> withdraw(w, false) :: else fi
#endif
}
inline producerLost(w) { ended(w); up[w] = false; if :: st[w] == withdrawing -> withdrawn(w) :: st[w] == unassigned -> skip :: else -> withdraw(w, true) fi }
inline again(w) { if :: st[w] == withdrawing -> ended(w); withdrawn(w) :: else -> ended(w) fi }  /* aborted: the same items, or given up */

/* ---- a worker ---- */

proctype Worker(byte w) {
  do
  /* claim: under the row's lock, which waits out a capture whose COMMIT is in flight */
  :: atomic { st[w] == claiming &&
#ifdef NO_GUARD_9_LOCK
       true ->
#else
       holder == NOBODY ->                                                                 /* GUARD 9: the lock tells whether a capture happened */
#endif
#ifndef ROWS_ONLY
       stopped_without_cause = doubt[w] && mine[w]; assert(!stopped_without_cause);                 /* DOUBT: nobody had claimed since, so it was no mistake */
#endif
       doubt[w] = false;
       raiseEpoch(); mine[w] = true; next[w] = pgNext; st[w] = looking;
       if :: look[w] == idle -> look[w] = asked :: else fi }

  /* look */
  :: atomic { look[w] == asked &&
#ifdef NO_GUARD_4
       true ->
#else
       !pending[0] && !pending[1] ->                                                       /* GUARD 4: stable */
#endif
       look[w] = answered; seen[w] = kfNext }
  :: atomic { st[w] == looking && look[w] == asked && pending[1-w] && !member[1-w] -> fence(1-w) }
  :: atomic { st[w] == looking && look[w] == answered ->
       look[w] = idle; pub[w] = seen[w]; seen[w] = 0;
       if
       :: pub[w] > next[w] -> forget(w);                                                   /* Kafka ahead, or we were overtaken: the next claim tells */
#ifdef NO_DOUBT
            stopped_without_cause = true; assert(!stopped_without_cause);
#endif
            doubt[w] = true; st[w] = claiming
       :: else ->
#ifdef NO_GUARD_5
            mem[w] = w * 255;
#else
            mem[w] = outbox;                                                               /* GUARD 5: what is owed is published as it was captured */
#endif
            st[w] = working
       fi }

  /* capture */
  :: atomic { st[w] == working && cap[w] == idle && next[w] < N && next[w] < pub[w] + 2 ->
       cap[w] = asked; cFrom[w] = next[w]; cMine[w] = mine[w]; cLive[w] = true }
  :: atomic { cap[w] == asked && holder == NOBODY ->
       if
#ifdef NO_GUARD_1
       :: true ->
#else
#ifdef NO_GUARD_1_EPOCH
       :: cFrom[w] == pgNext ->
#else
       :: cMine[w] && cFrom[w] == pgNext ->                                                /* GUARD 1: epoch and next_offset, under the lock */
#endif
#endif
          cap[w] = locked; holder = w; hFrom = cFrom[w]; hMine = cMine[w]; cFrom[w] = 0; cMine[w] = false
#ifndef NO_GUARD_1
       :: else -> if :: cLive[w] -> over(w); withdraw(w, false) :: else -> over(w) fi
#endif
       fi }
  /* publish: what was captured, in that order */
  :: atomic { st[w] == working && txn[w] == none && up[w] && stamped[w] && !paused[w] &&
#ifdef NO_GUARD_6
     pub[w] < N -> tTo[w] = (next[w] > pub[w] -> next[w] : pub[w] + 1);
#else
     pub[w] < next[w] -> tTo[w] = next[w];                                                 /* GUARD 6: captured before */
#endif
     txn[w] = begun; tFrom[w] = pub[w]; tBytes[w] = mem[w]; tFresh[w] = fresh[w]; tLive[w] = true }
  :: atomic { txn[w] == begun && !cancel[w] ->
       if
       :: fenced[w] -> producerLost(w)
       :: !fenced[w] && !(
#ifdef NO_GUARD_2
          member[w] || evicted[w]                                                          /* what the client has now: generation -1 once it knows, which nobody fences */
#else
          tFresh[w]                                                                        /* GUARD 2: the stamp of the callback, never a fresher one */
#endif
          ) -> if :: st[w] != withdrawing && !fresh[w] -> paused[w] = true :: else fi; again(w)
       :: else -> txn[w] = staged; pending[w] = true; pFrom[w] = tFrom[w]; pTo[w] = tTo[w]; pBytes[w] = tBytes[w]
       fi }
  :: atomic { txn[w] == staged && !cancel[w] ->
       if
       :: !pending[w] -> producerLost(w)                                                   /* the broker has aborted it: fenced */
       :: else -> commitKafka(w);
            if :: tLive[w] -> pub[w] = tTo[w] :: else fi;
            again(w)
       fi }
  :: atomic { txn[w] != none && cancel[w] -> if :: fenced[w] -> producerLost(w) :: else -> drop(w); again(w) fi }
  :: atomic { txn[w] != none && !fenced[w] && fault -> drop(w);
#ifdef NO_GUARD_7
       if :: tLive[w] -> pub[w] = tTo[w] :: else fi;
#endif
       again(w) }                                                                          /* GUARD 7: aborted, so the same bytes again */

  /* a new producer under the same transactional id */
  :: atomic { !up[w] && st[w] != dead -> drop(w); fenced[w] = false; up[w] = true; if :: st[w] == noProducer -> st[w] = claiming :: else fi }
  /* started again: InitTransactions, then the group, which a static member that was not missed rejoins without a rebalance */
  :: atomic { st[w] == dead -> drop(w); fenced[w] = false; up[w] = true; st[w] = unassigned;
       if :: member[w] && note[w] != revoking -> note[w] = (owner == w -> assigned : unchanged); due = due || owner == NOBODY :: else -> member[w] = true; note[w] = nothing; due = true fi; evicted[w] = false }

  :: atomic { finished -> break }
  od
}

/* ---- the poll: rebalance callbacks, one after the other ---- */

inline stamp(w) { stamped[w] = true; fresh[w] = member[w]; paused[w] = false }

proctype Poll(byte w) {
  do
  :: atomic { note[w] == assigned -> stamp(w); note[w] = nothing; has[w] = true;
       if :: st[w] == unassigned && up[w] -> st[w] = claiming :: st[w] == unassigned && !up[w] -> st[w] = noProducer :: else fi }
  :: atomic { note[w] == unchanged -> stamp(w); note[w] = nothing }
  :: atomic { note[w] == revoked -> stamp(w); note[w] = revoking; has[w] = false;
       if :: st[w] == unassigned -> note[w] = nothing; due = true :: st[w] == withdrawing -> skip :: else -> withdraw(w, false) fi }
  :: atomic { note[w] == nothing && evicted[w] && st[w] != dead && st[w] != withdrawing ->  /* lost; then it joins again */
       evicted[w] = false; stamped[w] = false; fresh[w] = false; has[w] = false;
       if :: st[w] != unassigned -> withdraw(w, true) :: else fi }
  :: atomic { note[w] == nothing && evicted[w] && st[w] == withdrawing -> evicted[w] = false; stamped[w] = false; fresh[w] = false; has[w] = false; cancel[w] = true }
  :: atomic { !member[w] && !evicted[w] && st[w] == unassigned && note[w] == nothing -> member[w] = true; due = true }
  :: atomic { finished -> break }
  od
}

/* ---- the group, the broker's clock, Postgres' backends, and what kills ---- */

inline assign(w) {                       /* cooperative: only a partition that nobody holds is given to somebody */
  newGeneration(); due = false; owner = w;
  note[0] = (member[0] -> (w == 0 -> assigned : unchanged) : note[0]);
  note[1] = (member[1] -> (w == 1 -> assigned : unchanged) : note[1])
}
#define ready(w) (!member[w] || (note[w] == nothing && st[w] != dead))   /* it has answered the last rebalance */

proctype Group() {
  do
  :: atomic { due && ready(0) && ready(1) && (member[0] || member[1]) ->
       if
       :: owner == NOBODY && member[0] -> assign(0)
       :: owner == NOBODY && member[1] -> assign(1)
       :: owner < W -> newGeneration(); due = false;                                       /* retained */
            note[0] = (member[0] -> unchanged : note[0]); note[1] = (member[1] -> unchanged : note[1])
       fi }
  :: atomic { !due && owner < W && ready(0) && ready(1) && member[0] && member[1] && fault ->    /* move it: revoked first */
       newGeneration(); note[owner] = revoked; note[1-owner] = unchanged; owner = NOBODY }
  :: atomic { finished -> break }
  od
}

inline evict(w) { member[w] = false; fresh[w] = false; tFresh[w] = false; evicted[w] = true; due = true; owner = (owner == w -> NOBODY : owner) }
inline kill(w) {
  st[w] = dead; forget(w); doubt[w] = false; look[w] = idle; seen[w] = 0; stamped[w] = false; fresh[w] = false; paused[w] = false; has[w] = false; up[w] = false;
  over(w); ended(w)
}

proctype World(byte w) {
  do
  :: atomic { member[w] && st[w] != dead && !evicted[w] && fault -> evict(w) }             /* silent too long, and working on */
  :: atomic { member[w] && st[w] == dead && !evicted[w] -> evict(w) }
  :: atomic { st[w] != dead && fault -> kill(w) }
  :: atomic { st[w] == dead && pending[w] -> commitKafka(w) }                              /* its EndTxn was under way */
  :: atomic { pending[w] && fault -> fence(w) }                                            /* the transaction timeout */
  :: atomic { holder == w -> commitPostgres(w);
       if :: cap[w] == locked && cLive[w] -> keep(w); over(w) :: cap[w] == locked && !cLive[w] -> over(w) :: else fi }   /* of an older life: for nobody */
  :: atomic { holder == w && cap[w] != locked -> unlock() }                                /* rolled back: its session is gone */
  :: atomic { holder == w && cap[w] == locked && fault -> unlock(); unknown(w) }
  :: atomic { holder == w && cap[w] == locked && fault -> unknown(w) }            /* the answer will not come, whatever happens */
  :: atomic { lateClaims > 0 && holder == NOBODY -> lateClaims--; raiseEpoch() }
  :: atomic { finished -> break }
  od
}

init { atomic { note[0] = assigned;
  run Worker(0); run Worker(1); run Poll(0); run Poll(1); run Group(); run World(0); run World(1)
} }
