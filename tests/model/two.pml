/* two.pml: two source partitions in one transaction, two workers, cooperative rebalances that take one partition and leave the other.
 *
 * Capture, claim and look are one step each here (base.pml takes them apart); the Kafka transaction is begun, staged, ended. A rebalance raises the
 * generation first; each member learns of it in a callback, and the next rebalance waits for all of them. What is taken away is given to nobody until
 * its owner's callback has returned (KIP-429). Worker 0 owns both partitions at the start.
 * Faults: a partition moves, a worker is evicted (and works on), a former owner's claim comes late, a transaction is aborted or times out.
 */
#define W 2
#ifndef N
#define N 2                              /* records in each partition */
#endif
#ifndef FAULTS
#define FAULTS 2
#endif
#define NOBODY W
#define X(w, p) ((w) * 2 + (p))          /* what worker w knows of partition p */

mtype:state = { unassigned, claiming, working, withdrawing, noProducer };
mtype:txn   = { none, begun, staged };

byte pgNext[2], kfNext[2];               /* stored offsets; group offsets */
bool mine[4];                            /* the row's epoch is that of w's claim of p */
byte owner[2] = 0;
bool member[W] = true, evicted[W], due;
bool told[W] = true, rejoin[W];          /* the callback of the present generation has run; a revoke's is running */
bool fenced[W];
byte faults;

mtype:state st[4] = unassigned;
bool has[4];
bool stamped[W], fresh[W], paused[W], up[W] = true;
byte next[4], pub[4];
mtype:txn txn[W] = none; bool tFresh[W], cancel[W];
bool in[4], live[4]; byte from[4], to[4];  /* p's part of w's open transaction */

hidden byte duplicate_row, hole_in_rows, captured_by_former_owner, duplicate_event, lost_event, kafka_ahead, stopped_without_cause;
#define fault    faults < FAULTS -> faults++
#define finished (pgNext[0] == N && pgNext[1] == N && kfNext[0] == N && kfNext[1] == N)
#define open(w, p) (txn[w] == staged && in[X(w,p)] && !fenced[w])

inline newGeneration() { fresh[0] = false; fresh[1] = false; tFresh[0] = false; tFresh[1] = false; told[0] = !member[0]; told[1] = !member[1] }

inline commitOne(x, p) {
  if
  :: in[x] ->
     duplicate_event = from[x] < kfNext[p]; assert(!duplicate_event);
     lost_event = from[x] > kfNext[p];      assert(!lost_event);
     kafka_ahead = to[x] > pgNext[p];       assert(!kafka_ahead);
     kfNext[p] = to[x];
     if :: live[x] -> pub[x] = to[x] :: else fi
  :: else
  fi
}
inline withdrawn(x, w) {
  if
  :: !has[x] -> st[x] = unassigned
  :: has[x] && up[w] -> st[x] = claiming
  :: has[x] && !up[w] -> st[x] = noProducer
  fi
}
inline part(x, w) { in[x] = false; live[x] = false; from[x] = 0; to[x] = 0; if :: st[x] == withdrawing -> withdrawn(x, w) :: else fi }
inline ended(w) { txn[w] = none; tFresh[w] = false; cancel[w] = false; part(X(w,0), w); part(X(w,1), w) }

inline withdraw(x, w, abort) {
  next[x] = 0; pub[x] = 0; live[x] = false;
  if
#ifndef NO_GUARD_3
  :: in[x] -> st[x] = withdrawing; cancel[w] = cancel[w] || abort                   /* GUARD 3 */
#endif
  :: else -> withdrawn(x, w)
  fi
}
inline lose(x, w) { if :: st[x] == claiming || st[x] == working -> withdraw(x, w, true) :: else fi }
inline producerLost(w) { up[w] = false; lose(X(w,0), w); lose(X(w,1), w); ended(w) }

inline captureOne(x, p) {
  if
  :: st[x] == working && next[x] < N && next[x] < pub[x] + 2 ->
     if
#ifdef NO_GUARD_1
     :: true ->
#else
     :: mine[x] && next[x] == pgNext[p] ->                                          /* GUARD 1: this row; the other is captured all the same */
#endif
        duplicate_row = next[x] < pgNext[p]; assert(!duplicate_row);
        hole_in_rows = next[x] > pgNext[p];  assert(!hole_in_rows);
#ifndef ROWS_ONLY
        captured_by_former_owner = !mine[x]; assert(!captured_by_former_owner);
#endif
        pgNext[p]++; next[x]++
#ifndef NO_GUARD_1
     :: else -> refused = refused | (1 << p)
#endif
     fi
  :: else
  fi
}
inline take(x) { if :: st[x] == working && pub[x] < next[x] -> in[x] = true; live[x] = true; from[x] = pub[x]; to[x] = next[x] :: else fi }
inline claim(w, p) {
  mine[X(0,p)] = false; mine[X(1,p)] = false; mine[X(w,p)] = true;
  next[X(w,p)] = pgNext[p]; pub[X(w,p)] = kfNext[p]; st[X(w,p)] = working
}
#define claimable(w, p) (st[X(w,p)] == claiming && !open(0, p) && !open(1, p))
#define capturable(w, p) (st[X(w,p)] == working && next[X(w,p)] < N && next[X(w,p)] < pub[X(w,p)] + 2)
#define publishable(w, p) (st[X(w,p)] == working && pub[X(w,p)] < next[X(w,p)])

proctype Worker(byte w) {
  byte refused;
  do
  :: d_step { claimable(w, 0) -> claim(w, 0) }
  :: d_step { claimable(w, 1) -> claim(w, 1) }

  :: atomic { capturable(w, 0) || capturable(w, 1) ->
       if
       :: captureOne(X(w,0), 0); captureOne(X(w,1), 1)
       :: capturable(w, 0) && capturable(w, 1) -> captureOne(X(w,0), 0)             /* or one of them alone */
       :: capturable(w, 0) && capturable(w, 1) -> captureOne(X(w,1), 1)
       fi;
       if :: refused & 1 -> withdraw(X(w,0), w, false) :: else fi;
       if :: refused & 2 -> withdraw(X(w,1), w, false) :: else fi;
       refused = 0 }

  :: atomic { txn[w] == none && up[w] && stamped[w] && !paused[w] && (publishable(w, 0) || publishable(w, 1)) ->
       if
       :: take(X(w,0)); take(X(w,1))
       :: publishable(w, 0) && publishable(w, 1) -> take(X(w,0))
       :: publishable(w, 0) && publishable(w, 1) -> take(X(w,1))
       fi;
       txn[w] = begun; tFresh[w] = fresh[w] }
  :: atomic { txn[w] == begun && !cancel[w] ->
       if
       :: fenced[w] -> producerLost(w)
#ifdef NO_GUARD_2
       :: !fenced[w] && !member[w] && !evicted[w] ->                                /* what the client has now: generation -1 once it knows, which nobody fences */
#else
       :: !fenced[w] && !tFresh[w] ->                                               /* GUARD 2: the stamp it was begun with */
#endif
          paused[w] = !fresh[w]; ended(w)
       :: else -> txn[w] = staged
       fi }
  :: atomic { txn[w] == staged && !cancel[w] ->
       if
       :: fenced[w] -> producerLost(w)
       :: else -> d_step { commitOne(X(w,0), 0); commitOne(X(w,1), 1) } ended(w)
       fi }
  :: atomic { txn[w] != none && cancel[w] -> if :: fenced[w] -> producerLost(w) :: else -> ended(w) fi }
#ifdef NO_GUARD_7
  :: atomic { txn[w] != none && !fenced[w] && fault -> if :: live[X(w,0)] -> pub[X(w,0)] = to[X(w,0)] :: else fi; ended(w) }
#else
  :: atomic { txn[w] != none && !fenced[w] && fault -> ended(w) }                   /* GUARD 7: aborted, for both; the same again */
#endif
  :: atomic { !up[w] && txn[w] == none -> up[w] = true; fenced[w] = false;
       if :: st[X(w,0)] == noProducer -> st[X(w,0)] = claiming :: else fi; if :: st[X(w,1)] == noProducer -> st[X(w,1)] = claiming :: else fi }
  :: atomic { finished -> break }
  od
}

/* ---- callbacks ---- */

#define taken(w, p)  (has[X(w,p)] && owner[p] != w)
#define given(w, p)  (!has[X(w,p)] && owner[p] == w)
#define held(w, p)   (!has[X(w,p)] && st[X(w,p)] != unassigned)     /* given up, and something of it still open */
inline stamp(w) { stamped[w] = true; fresh[w] = member[w]; paused[w] = false }
inline revoke(w, p, lost) {
  if
  :: taken(w, p) || (lost && has[X(w,p)]) ->
     has[X(w,p)] = false;
#ifdef NO_GUARD_2_QUEUE
     if :: st[X(w,p)] == claiming || st[X(w,p)] == noProducer -> st[X(w,p)] = unassigned :: else fi
#else
     if :: st[X(w,p)] == withdrawing -> cancel[w] = cancel[w] || lost :: else -> withdraw(X(w,p), w, lost) fi   /* GUARD 2 queue: what is not retained leaves the queue */
#endif
  :: else
  fi
}
inline assign(w, p) { if :: given(w, p) -> has[X(w,p)] = true; if :: st[X(w,p)] == unassigned -> withdrawn(X(w,p), w) :: else fi :: else fi }

proctype Poll(byte w) {
  do
  :: atomic { !told[w] && !rejoin[w] && member[w] && (taken(w, 0) || taken(w, 1)) -> stamp(w); rejoin[w] = true; revoke(w, 0, false); revoke(w, 1, false) }
  :: atomic { rejoin[w] &&
#ifdef NO_GUARD_2_QUEUE
       txn[w] == none ->
#else
       !held(w, 0) && !held(w, 1) ->
#endif
       rejoin[w] = false; due = due || member[w]; told[w] = true }
  :: atomic { !told[w] && !rejoin[w] && member[w] && !taken(w, 0) && !taken(w, 1) -> stamp(w); assign(w, 0); assign(w, 1); told[w] = true }
  :: atomic { evicted[w] && !rejoin[w] -> evicted[w] = false; stamped[w] = false; fresh[w] = false; revoke(w, 0, true); revoke(w, 1, true) }
  :: atomic { !member[w] && !evicted[w] && !rejoin[w] && !held(w, 0) && !held(w, 1) -> member[w] = true; due = true }
  :: atomic { finished -> break }
  od
}

inline giveOne(p) { if :: owner[p] == NOBODY && member[0] -> owner[p] = 0 :: owner[p] == NOBODY && member[1] -> owner[p] = 1 :: owner[p] != NOBODY fi }
inline evictOne(w, p) { if :: owner[p] == w -> owner[p] = NOBODY :: else fi }

proctype World() {
  do
  :: atomic { due && told[0] && told[1] && (member[0] || member[1]) -> due = false; giveOne(0); giveOne(1); newGeneration() }
  :: atomic { !due && told[0] && told[1] && owner[0] < W && member[0] && member[1] && fault -> owner[0] = NOBODY; newGeneration() }
  :: atomic { !due && told[0] && told[1] && owner[1] < W && member[0] && member[1] && fault -> owner[1] = NOBODY; newGeneration() }
  :: atomic { member[0] && !evicted[0] && fault -> member[0] = false; evicted[0] = true; fresh[0] = false; tFresh[0] = false; told[0] = true; evictOne(0, 0); evictOne(0, 1); due = true }
  :: atomic { member[1] && !evicted[1] && fault -> member[1] = false; evicted[1] = true; fresh[1] = false; tFresh[1] = false; told[1] = true; evictOne(1, 0); evictOne(1, 1); due = true }
  :: atomic { fault -> mine[X(0,0)] = false; mine[X(1,0)] = false }                   /* a claim of a life that is over */
  :: atomic { (open(0, 0) || open(0, 1)) && fault -> fenced[0] = true }                   /* the transaction timeout */
  :: atomic { (open(1, 0) || open(1, 1)) && fault -> fenced[1] = true }
  :: atomic { finished -> break }
  od
}

init { atomic { told[0] = false; run Worker(0); run Worker(1); run Poll(0); run Poll(1); run World() } }
