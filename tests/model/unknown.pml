/* unknown.pml: the outcome of a Kafka request is unknown, and its copy arrives late.
 *
 * One source partition, everything in it captured; two workers, of which one owns it. Each Kafka transaction is one event, the offset after it, and
 * EndTxn, every request on its own. A request can be lost with its connection and still arrive later (a stray), as long as the broker takes its producer
 * epoch for the newest. If the client gives up, the outcome is unknown. It may also send the request again itself, on another connection, and be answered: then the
 * outcome is known, and a copy is still under way. A client that speaks KIP-890 (franz-go) raises the epoch with each end of a transaction, which refuses the
 * copy. librdkafka does not, and repeats EndTxn and TxnOffsetCommit by itself: so a transaction in which it did is followed by a new producer.
 * A stray EndTxn ends whatever transaction is open then; a stray TxnOffsetCommit puts an older offset into it.
 * Faults: a request's fate is unknown, a transaction is given up, a worker dies for good, the partition moves.
 */
#define W 2
#ifndef N
#define N 3                              /* records */
#endif
#ifndef FAULTS
#define FAULTS 3
#endif

mtype:state = { unassigned, claiming, looking, ready, produced, staged, committing, aborting, noProducer, dead };
mtype:end   = { nothing, commit, abort };

/* Kafka */
byte kfNext, out;                        /* group offset; bit r: the event of record r is visible */
bool open[W]; byte events[W], offset[W]; /* w's open transaction: events, and the offset staged in it (0: none) */
mtype:end strayEnd[W] = nothing; byte strayOffset[W];
bool newest[W];                          /* w's producer has the newest epoch of its transactional id */
byte owner;
byte faults;

/* What each worker knows */
mtype:state st[W] = unassigned;
bool has[W], gone[W];                    /* the partition is assigned; it was taken away, and w is still to be told */
bool paused[W], fresh[W];                /* wait for a callback; the stamp is the present generation's (w does not know) */
byte pub[W];
bool again[W];                           /* a request of the transaction was sent a second time by the client itself */

#ifdef NO_GUARD_8_LOOK
byte tried[W] = 0;
#endif
hidden byte duplicate_event, torn_transaction;
#define fault    faults < FAULTS -> faults++
#define finished (kfNext == N && out == (1 << N) - 1)

inline end(a, how) {
  d_step {
    if
    :: how == commit ->
       duplicate_event = (events[a] & out) != 0; assert(!duplicate_event);
       out = out | events[a];
       if :: offset[a] > 0 -> kfNext = offset[a] :: else fi;
       torn_transaction = out != (1 << kfNext) - 1; assert(!torn_transaction)       /* events and offset become visible together, or not */
    :: else
    fi;
    open[a] = false; events[a] = 0; offset[a] = 0 }
}
inline fence(b) { newest[b] = false; strayEnd[b] = nothing; strayOffset[b] = 0; end(b, abort) }   /* InitProducerId: what is open is aborted, strays are refused */

/* engine/pipeline.go producerLost: nothing of this producer is used any more */
inline lost(w) {
#ifdef NO_GUARD_8_LOOK
  tried[w] = pub[w];
#endif
  pub[w] = 0; again[w] = false;
#ifdef NO_GUARD_8
  if :: newest[w] -> st[w] = (has[w] -> claiming : unassigned) :: else -> st[w] = noProducer fi
#else
  newest[w] = false; st[w] = noProducer                                             /* GUARD 8: a new producer, and only then claim, look, drain */
#endif
}
inline done(w) {                         /* the transaction's end is known */
  if
#ifndef NO_GUARD_8_REPEATED
  :: again[w] -> lost(w)                                                            /* GUARD 8 repeated: a copy may still be under way */
#endif
  :: else -> st[w] = (has[w] -> ready : unassigned); if :: has[w] -> skip :: else -> pub[w] = 0 fi
  fi
}

proctype Worker(byte w) {
  do
  /* the callbacks: assigned; lost, and a transaction under way is aborted first */
  :: atomic { owner == w && !has[w] && !gone[w] && (st[w] == unassigned || st[w] == noProducer) -> has[w] = true; fresh[w] = true; paused[w] = false;
       st[w] = (newest[w] -> claiming : noProducer) }
  :: atomic { gone[w] && has[w] && st[w] != dead -> gone[w] = false; has[w] = false; fresh[w] = false; paused[w] = false;
       if
       :: st[w] == produced || st[w] == staged -> st[w] = aborting
       :: st[w] == committing || st[w] == aborting || st[w] == noProducer -> skip
       :: else -> st[w] = unassigned; pub[w] = 0
       fi }
  :: atomic { st[w] == noProducer -> fence(w); newest[w] = true;                      /* Renew: close, InitTransactions */
#ifdef NO_GUARD_8_LOOK
       pub[w] = tried[w]; st[w] = (has[w] -> ready : unassigned)
#else
       st[w] = (has[w] -> claiming : unassigned)                                    /* GUARD 8 look: Kafka says what became of it */
#endif
     }
  :: atomic { st[w] == claiming -> st[w] = looking }
  :: atomic { st[w] == looking && offset[0] == 0 && offset[1] == 0 -> pub[w] = kfNext; st[w] = ready }
  :: atomic { st[w] == looking && offset[1-w] > 0 && st[1-w] == dead -> fence(1-w) }

  /* one transaction */
  :: atomic { st[w] == ready && !paused[w] && pub[w] < N ->
       if :: !newest[w] -> lost(w) :: else -> open[w] = true; events[w] = events[w] | (1 << pub[w]); st[w] = produced fi }
  :: atomic { st[w] == produced ->
       if
       :: !newest[w] -> lost(w)
       :: newest[w] && fresh[w] -> open[w] = true; offset[w] = pub[w] + 1; st[w] = staged
       :: newest[w] && !fresh[w] -> paused[w] = true; st[w] = aborting               /* refused: not the present generation; wait for the callback */
       fi }
  :: atomic { st[w] == produced && newest[w] && strayOffset[w] == 0 && fresh[w] && fault -> strayOffset[w] = pub[w] + 1; again[w] = true }   /* lost on its way; sent again */
  :: atomic { st[w] == staged -> st[w] = committing }
  :: atomic { (st[w] == produced || st[w] == staged) && fault -> st[w] = aborting }
  :: atomic { st[w] == committing || st[w] == aborting ->
       if
       :: !newest[w] -> lost(w)
       :: newest[w] && st[w] == committing && open[w] -> end(w, commit); pub[w]++; done(w)
       :: newest[w] && st[w] == committing && !open[w] -> pub[w]++; done(w)           /* the stray was first: the broker answers as it did then */
       :: newest[w] && st[w] == aborting -> end(w, abort); done(w)
       fi }
  :: atomic { (st[w] == committing || st[w] == aborting) && newest[w] && strayEnd[w] == nothing && fault ->
       strayEnd[w] = (st[w] == committing -> commit : abort);
       if
       :: again[w] = true                                                           /* sent again, and answered: see above */
       :: lost(w)                                                                   /* or given up: unknown */
       fi }

  :: atomic { st[w] != dead && st[1-w] != dead && fault ->
       has[w] = false; fresh[w] = false; paused[w] = false; gone[w] = false; pub[w] = 0; st[w] = dead;
       if :: owner == w -> owner = 1 - w :: else fi; break }
  :: atomic { finished -> break }
  od
}

proctype World(byte w) {
  do
  :: atomic { strayEnd[w] != nothing -> if :: open[w] -> end(w, strayEnd[w]) :: else fi; strayEnd[w] = nothing }
  :: atomic { strayOffset[w] > 0 -> if :: offset[w] > 0 || open[w] -> open[w] = true; offset[w] = strayOffset[w] :: else fi; strayOffset[w] = 0 }
  :: atomic { strayEnd[w] != nothing -> strayEnd[w] = nothing }                       /* it never arrives */
  :: atomic { strayOffset[w] > 0 -> strayOffset[w] = 0 }
  :: atomic { owner == w && has[w] && st[1-w] != dead && !gone[1-w] && fault -> owner = 1 - w; gone[w] = true; fresh[w] = false }
  :: atomic { finished -> break }
  od
}

init { atomic { newest[0] = true; newest[1] = true; run Worker(0); run Worker(1); run World(0); run World(1) } }
