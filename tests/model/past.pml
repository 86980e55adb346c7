/* past.pml: a store goes back in time while a worker has work in memory.
 *
 * One source partition, two workers. Postgres is restored from a backup (or a replica without the last commits is promoted): row, rows and outbox are as
 * they were when it was taken, its identity (system identifier, timeline) is another, all sessions are gone. So epochs can be given out a second time:
 * here they are numbers. Kafka's group offset is set to an older one by a person, or by Kafka itself (commits lost).
 * A worker has sessions of two kinds: its pool's (claim, gap) and the one that captures, dialled when it is first needed; txn/store.go meet, session.
 * Known to be open: a former owner that is still to be told captures into the restored row, which has forgotten the owner's epoch, what the owner is just
 * publishing from memory. Both sinks then have the record, each with its own enrichment. Such a run ends there; -DHOLE_FORMER_OWNER goes on, and finds it.
 * Faults: the restore, the reset, the lost commits (each at most once, and not both stores go back), a worker is evicted (and works on), a transaction is aborted.
 */
#define W 2
#ifndef N
#define N 2                              /* records */
#endif
#ifndef FAULTS
#define FAULTS 3
#endif
#ifndef CLAIMS
#define CLAIMS 5                         /* claims in all; a run that wants more ends there. Epochs being numbers, there is no other end to them */
#endif
#define NONE 2

mtype:state = { unassigned, claiming, looking, gap, working, withdrawing, stopped };

/* Postgres. bytes: two bits a record, 0: not there, w + 1: captured by w */
byte pgNext, pgEpoch, pgFloor, pgBytes, line;
byte sNext, sEpoch, sFloor, sBytes; bool saved;
bool stands[W];                          /* what really is the newest claim, which a restored epoch can't tell */

/* Kafka */
byte kfNext, end; bool ours = true;      /* group offset; events are visible for the records before end; the offset carries our metadata */
bool pending[W]; byte pFrom[W], pTo[W], pBytes[W];
byte owner; bool gone[W];                /* gone: taken away, and w is still to be told */
bool wasReset, wasBack;
byte faults, claims; bool hole;

/* What each worker knows */
mtype:state st[W] = unassigned;
bool has[W], fresh[W], paused[W];
byte epoch[W], next[W], floor[W], pub[W], mem[W];
byte doubt[W] = 255;                     /* the epoch under which Kafka was found ahead; 255: none */
byte known[W], session[W] = NONE; bool tell[W];   /* the identity last met; the capture session's; told to the next capture */

hidden byte r;
hidden byte captured_by_former_owner, captured_again, hole_in_rows, duplicate_event, lost_event, kafka_ahead, other_bytes, stopped_without_cause;
#define fault    faults < FAULTS -> faults++
#define at(s, r) ((s >> (2 * (r))) & 3)
#define halted   (st[0] == stopped || st[1] == stopped || hole)
#define over     (pgNext == N && kfNext == N)
#define finished (over || halted || claims == CLAIMS)

inline forget(w) { next[w] = 0; pub[w] = 0; mem[w] = 0; epoch[w] = 0; floor[w] = 0 }
inline withdraw(w) {                     /* dropMemory, refused, lost */
  forget(w);
  if
  :: pending[w] -> st[w] = withdrawing
  :: else -> st[w] = (has[w] -> claiming : unassigned); if :: has[w] -> skip :: else -> doubt[w] = 255 fi
  fi
}
inline stop(w) {
  stopped_without_cause = line == 0 && ours && kfNext <= pgNext && kfNext >= pgFloor; assert(!stopped_without_cause);
  forget(w); st[w] = stopped
}
inline ended(w) {
  pending[w] = false; pFrom[w] = 0; pTo[w] = 0; pBytes[w] = 0;
  if :: st[w] == withdrawing -> st[w] = (has[w] -> claiming : unassigned); if :: has[w] -> skip :: else -> doubt[w] = 255 fi :: else fi
}
inline commit(w) {
  duplicate_event = pFrom[w] < end; assert(!duplicate_event);
  lost_event = pFrom[w] > end;      assert(!lost_event);
  kafka_ahead = pTo[w] > pgNext && line == 0; assert(!kafka_ahead);
  r = pFrom[w];
  do
  :: r < pTo[w] ->
     lost_event = at(pBytes[w], r) == 0; assert(!lost_event);
     other_bytes = !hole && r < pgNext && at(pBytes[w], r) != at(pgBytes, r); assert(!other_bytes);
     r++
  :: else -> break
  od;
  kfNext = pTo[w]; end = pTo[w]; ours = true;
  if :: st[w] == working -> pub[w] = pTo[w] :: else fi;
  ended(w)
}
#ifdef NO_GUARD_11
#define another(w)  false
#define changed(w)  false
#else
#define another(w)  (known[w] != line)   /* GUARD 11: a new session compares the identity with that of before */
#define changed(w)  tell[w]              /* GUARD 11: whoever met another, the next capture fails and drops what is in memory */
#endif
#ifdef NO_GUARD_10_OURS
#define trusted     true
#else
#define trusted     ours                 /* GUARD 10 ours: the group offset carries our metadata */
#endif

proctype Worker(byte w) {
  do
  :: atomic { owner == w && !has[w] && !gone[w] && st[w] == unassigned -> has[w] = true; fresh[w] = true; paused[w] = false; st[w] = claiming }
  :: atomic { gone[w] && has[w] -> gone[w] = false; has[w] = false; fresh[w] = false; paused[w] = false;
       if :: st[w] == stopped || st[w] == withdrawing -> skip :: else -> withdraw(w) fi }

  :: atomic { st[w] == claiming && claims < CLAIMS ->
       if
       :: another(w) -> known[w] = line; tell[w] = true                               /* tried again */
       :: else ->
          claims++; pgEpoch++; epoch[w] = pgEpoch; next[w] = pgNext; floor[w] = pgFloor; stands[0] = false; stands[1] = false; stands[w] = true;
          st[w] = looking
       fi }

  :: atomic { st[w] == looking && !pending[0] && !pending[1] ->
       if
       :: !trusted -> stop(w)
       :: trusted && kfNext > next[w] ->
#ifdef NO_GUARD_10_AHEAD
          pub[w] = next[w]; st[w] = gap
#else
          if                                                                          /* GUARD 10 ahead: Kafka has what Postgres lacks */
          :: doubt[w] != 255 && doubt[w] + 1 == epoch[w] -> stop(w)                    /* DOUBT: nobody has claimed since the claim that saw it first */
          :: else -> doubt[w] = epoch[w]; forget(w); st[w] = claiming
          fi
#endif
#ifndef NO_GUARD_10_FLOOR
       :: trusted && kfNext <= next[w] && kfNext < floor[w] -> stop(w)                 /* GUARD 10 floor: it was already seen further on */
       :: trusted && kfNext <= next[w] && kfNext >= floor[w] -> pub[w] = kfNext; st[w] = gap
#else
       :: trusted && kfNext <= next[w] -> pub[w] = kfNext; st[w] = gap
#endif
       fi }

  :: atomic { st[w] == gap ->
       if
       :: another(w) -> known[w] = line; tell[w] = true; withdraw(w)
#ifndef NO_COVERAGE
       :: !another(w) && pub[w] < next[w] && next[w] > pgNext -> withdraw(w)           /* COVERAGE: the ledger has no capture of it; stopped, and looked at again */
       :: !another(w) && !(pub[w] < next[w] && next[w] > pgNext) -> mem[w] = pgBytes; st[w] = working; doubt[w] = 255
#else
       :: !another(w) -> mem[w] = pgBytes; st[w] = working; doubt[w] = 255
#endif
       fi }

  :: atomic { st[w] == working && next[w] < N && next[w] < pub[w] + 2 ->
       if
       :: changed(w) -> tell[w] = false; session[w] = NONE; withdraw(w)
       :: !changed(w) && session[w] == NONE && another(w) -> known[w] = line; withdraw(w)
       :: !changed(w) && session[w] != NONE && session[w] != line -> session[w] = NONE; withdraw(w)   /* it is gone: any error drops what is in memory */
       :: !changed(w) && (session[w] == line || (session[w] == NONE && !another(w))) ->
          session[w] = line;
          if
          :: next[w] == pgNext && epoch[w] == pgEpoch ->
#ifndef ROWS_ONLY
             captured_by_former_owner = !stands[w]; assert(!captured_by_former_owner);
#endif
#ifndef HOLE_FORMER_OWNER
             hole = hole || (line == 1 && gone[w]);
#endif
             captured_again = next[w] < end && !hole; assert(!captured_again);
             pgBytes = pgBytes | ((w + 1) << (2 * pgNext)); mem[w] = pgBytes; pgNext++; next[w]++;
             pgFloor = (pgFloor > pub[w] -> pgFloor : pub[w])
          :: else -> withdraw(w)
          fi
       fi }

  :: atomic { st[w] == working && next[w] == N && line == 1 && (changed(w) || session[w] != line || next[w] != pgNext || epoch[w] != pgEpoch) ->
       known[w] = line; tell[w] = false; session[w] = NONE; withdraw(w) }              /* the next record's capture; without one nobody notices */

  :: atomic { st[w] == working && !pending[w] && !paused[w] && pub[w] < next[w] ->
       if
       :: fresh[w] -> pending[w] = true; pFrom[w] = pub[w]; pTo[w] = next[w]; pBytes[w] = mem[w]
       :: !fresh[w] -> paused[w] = true
       fi }
  :: atomic { pending[w] -> commit(w) }
  :: atomic { pending[w] && fault -> ended(w) }
  :: atomic { finished -> break }
  od
}

/* a group with members at work refuses to be reset; what Kafka loses under one that works, its next commit mends */
#define idle(w) (st[w] == unassigned || st[w] == claiming)
#define nobody  (idle(0) && idle(1) && !pending[0] && !pending[1])

proctype World() {
  do
  :: atomic { has[owner] && !gone[1-owner] && fault -> gone[owner] = true; fresh[owner] = false; owner = 1 - owner }
  :: atomic { !saved && line == 0 -> saved = true; sNext = pgNext; sEpoch = pgEpoch; sFloor = pgFloor; sBytes = pgBytes }
  :: atomic { saved && line == 0 && !wasBack && !over && fault -> line = 1; pgNext = sNext; pgEpoch = sEpoch; pgFloor = sFloor; pgBytes = sBytes;
       sNext = 0; sEpoch = 0; sFloor = 0; sBytes = 0; stands[0] = false; stands[1] = false }
  :: atomic { !wasReset && kfNext > 0 && !over && nobody && fault -> wasReset = true; kfNext--; ours = false }
  :: atomic { !wasBack && line == 0 && kfNext > 0 && kfNext == pgFloor && !over && nobody && fault -> wasBack = true; kfNext-- }
  :: atomic { finished -> break }
  od
}

init { atomic { run Worker(0); run Worker(1); run World() } }
