/* takeover.pml: three workers, of which up to two die for good, in their drains too; nobody's transaction ever times out.
 *
 * One source partition. What a dead worker leaves open hides the group offset until somebody initialises its transactional.id, so the row must name
 * everybody who may have left something: the worker who last closed the gap, and all who claimed since (txn/claim.go claim, Drained).
 * A group offset that stays pending: ask the group for its members, fence those of the predecessors that are none (internal/admin/fence.go). A live member is
 * left alone: it ends its transaction itself. A process started again under its worker id fences what its earlier incarnation left.
 * Faults: a worker is killed for good, or to be started again; evicted while it works on; its claim comes late.
 */
#define W 3
#ifndef N
#define N 1                              /* records */
#endif
#ifndef FAULTS
#define FAULTS 3
#endif
#define NOBODY W

mtype:state = { unassigned, claiming, looking, fencing, working, withdrawing, noProducer, dead, deadForGood };

/* Postgres */
byte pgNext, claimants; byte worker = NOBODY;    /* bit w: w has claimed since the gap was last closed; who closed it */
bool mine[W];
/* Kafka */
byte kfNext, owner = 0, members = 7;             /* bit w: w is a member */
bool pending[W]; byte pFrom[W], pTo[W]; bool fenced[W];
byte faults, dying;

/* What each worker knows */
mtype:state st[W] = unassigned;
bool has[W], gone[W], fresh[W], paused[W], sending[W], up[W] = true, closed[W];   /* closed: the gap is, and Postgres is to be told */
byte next[W], pub[W], before[W], absent[W];

hidden byte duplicate_event, lost_event, kafka_ahead, captured_by_former_owner;
#define fault    faults < FAULTS -> faults++
#define graver   faults + 1 < FAULTS -> faults = faults + 2   /* evicted, and working on; a claim that comes late: base.pml has them, too */
#define finished (pgNext == N && kfNext == N)
#define bit(s, b) ((s >> (b)) & 1)
#define unstable (pending[0] || pending[1] || pending[2])
#define alive(w) (st[w] != dead && st[w] != deadForGood)

inline drop(a) { pending[a] = false; pFrom[a] = 0; pTo[a] = 0 }
inline fence(b) { drop(b); fenced[b] = true }
inline commit(c) {
  duplicate_event = pFrom[c] < kfNext; assert(!duplicate_event);
  lost_event = pFrom[c] > kfNext;      assert(!lost_event);
  kafka_ahead = pTo[c] > pgNext;       assert(!kafka_ahead);
  kfNext = pTo[c]; drop(c)
}
inline forget(w) { next[w] = 0; pub[w] = 0; before[w] = 0; absent[w] = 0; closed[w] = false }
inline withdrawn(w) { st[w] = (has[w] -> (up[w] -> claiming : noProducer) : unassigned) }
inline withdraw(w) { forget(w); if :: sending[w] -> st[w] = withdrawing :: else -> withdrawn(w) fi }
inline lost(w) { sending[w] = false; up[w] = false; forget(w); withdrawn(w) }
inline raiseEpoch() { mine[0] = false; mine[1] = false; mine[2] = false }

proctype Worker(byte w) {
  do
  :: atomic { st[w] == claiming ->
       raiseEpoch(); mine[w] = true; next[w] = pgNext;
#ifdef NO_CLAIMANTS
       before[w] = (worker < W -> 1 << worker : 0);
#else
       before[w] = claimants | (worker < W -> 1 << worker : 0); claimants = claimants | (1 << w);   /* CLAIMANTS: all who claimed since the gap was closed */
#endif
#ifdef NO_PREDECESSOR
       before[w] = claimants & ~(1 << w); claimants = 1 << w; worker = NOBODY;
#endif
       st[w] = looking }

  :: atomic { st[w] == looking && !unstable ->
       if :: kfNext > next[w] -> forget(w); st[w] = claiming                          /* overtaken */
          :: else -> pub[w] = kfNext; before[w] = 0; st[w] = working; closed[w] = pub[w] == next[w] fi }
#ifndef NO_FENCE
  :: atomic { st[w] == looking && unstable && (before[w] & ~members & ~(1 << w)) -> absent[w] = before[w] & ~members & ~(1 << w); st[w] = fencing }   /* FENCE: those that are no members */
#endif
  :: atomic { st[w] == fencing && bit(absent[w], 0) -> fence(0); absent[w] = absent[w] & 6 }
  :: atomic { st[w] == fencing && !bit(absent[w], 0) && bit(absent[w], 1) -> fence(1); absent[w] = absent[w] & 4 }
  :: atomic { st[w] == fencing && absent[w] == 4 -> fence(2); absent[w] = 0 }
  :: atomic { st[w] == fencing && absent[w] == 0 -> st[w] = looking }

  :: atomic { closed[w] -> closed[w] = false; if :: mine[w] -> worker = w; claimants = 0 :: else fi }      /* Drained: compares the epoch */

  :: atomic { st[w] == working && pub[w] == next[w] && next[w] < N ->                  /* capture, once the gap is closed */
       if
       :: mine[w] && next[w] == pgNext -> pgNext++; next[w]++
       :: else -> withdraw(w)
       fi }
  :: atomic { st[w] == working && !sending[w] && up[w] && !paused[w] && pub[w] < next[w] ->
       if
       :: fenced[w] -> lost(w)
       :: !fenced[w] && fresh[w] -> sending[w] = true; pending[w] = true; pFrom[w] = pub[w]; pTo[w] = next[w]
       :: !fenced[w] && !fresh[w] -> paused[w] = true
       fi }
  :: atomic { sending[w] ->
       if
       :: fenced[w] -> lost(w)
       :: !fenced[w] && st[w] == working -> pub[w] = pTo[w]; closed[w] = pub[w] == next[w] && bit(claimants, w); commit(w); sending[w] = false
       :: !fenced[w] && st[w] != working -> commit(w); sending[w] = false; withdrawn(w)
       :: !fenced[w] && st[w] != working -> drop(w); sending[w] = false; withdrawn(w)
       fi }
  :: atomic { !up[w] && alive(w) -> drop(w); fenced[w] = false; up[w] = true; if :: st[w] == noProducer -> st[w] = claiming :: else fi }
  :: atomic { st[w] == dead -> drop(w); fenced[w] = false; up[w] = true; st[w] = unassigned }       /* the next incarnation: InitTransactions first */
  :: atomic { finished || st[w] == deadForGood -> break }
  od
}

inline evict(w) { members = members & ~(1 << w); fresh[w] = false; gone[w] = alive(w) && has[w]; if :: owner == w -> owner = NOBODY :: else fi }
inline kill(w) { forget(w); has[w] = false; gone[w] = false; fresh[w] = false; paused[w] = false; sending[w] = false; up[w] = false }

proctype World(byte w) {               /* its poll, and what happens to it */
  do
  :: atomic { alive(w) && gone[w] -> gone[w] = false; has[w] = false; fresh[w] = false; paused[w] = false;
       if :: st[w] == unassigned || st[w] == withdrawing -> skip :: else -> withdraw(w) fi }
  :: atomic { alive(w) && !gone[w] && !bit(members, w) && st[w] == unassigned -> members = members | (1 << w) }
  :: atomic { alive(w) && bit(members, w) && owner == w && !has[w] && st[w] == unassigned -> has[w] = true; fresh[w] = true; paused[w] = false; withdrawn(w) }
  :: atomic { owner == NOBODY && bit(members, w) && alive(w) -> owner = w }
  :: atomic { bit(members, w) && !alive(w) -> evict(w) }
  :: atomic { bit(members, w) && alive(w) && graver -> evict(w) }
  :: atomic { alive(w) && fault -> kill(w); st[w] = dead }
  :: atomic { alive(w) && dying < 2 && fault -> dying++; kill(w); st[w] = deadForGood }
  :: atomic { mine[w] && graver -> raiseEpoch() }                                      /* a claim of a life that is over */
  :: atomic { finished || (st[w] == deadForGood && !bit(members, w)) -> break }
  od
}

init { atomic { run Worker(0); run Worker(1); run Worker(2); run World(0); run World(1); run World(2) } }
