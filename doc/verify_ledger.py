#!/usr/bin/env python3
"""Verifies the ledger's chains with nothing of ours: Python 3 and its standard library. Reads a file or standard input, of either
     exactly ledger show --json
     psql --csv -c 'SELECT * FROM offset_ledger ORDER BY source_id, source_partition, seq'
Prints what is wrong, then each chain's newest entry, to compare with its heads in Kafka. Exit code 3 if anything is wrong."""
import csv, hashlib, itertools, json, re, struct, sys
from datetime import datetime, timedelta, timezone

NUMBERS = "from_offset to_offset records rows dead_letters events".split()
TEXTS = "worker why who build schemas geo".split()
i64 = lambda v: struct.pack(">q", int(v))                       # 8 bytes, big-endian
text = lambda b: i64(len(b)) + b                                # its length before it
raw = lambda v: bytes.fromhex(v[2:] if v.startswith("\\x") else v)

def micros(e):                                                  # since the Unix epoch
    if "committed_at_us" in e: return int(e["committed_at_us"])
    base, fraction, zone = re.fullmatch(r"([-0-9]+[ T][:0-9]+)(?:\.(\d+))?([-+]\d\d(?::?\d\d)?)", e["committed_at"]).groups()
    t = datetime.strptime(base.replace("T", " ") + zone.replace(":", "").ljust(5, "0"), "%Y-%m-%d %H:%M:%S%z")
    return (t - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(seconds=1) * 1000000 + int((fraction or "").ljust(6, "0"))

def entry_hash(e):
    b = i64(e["source_id"]) + i64(e["source_partition"]) + i64(e["seq"]) + text(e["kind"].encode())
    b += b"".join(i64(e[n]) for n in NUMBERS) + text(raw(e["digest"])) + text(raw(e["prev_hash"])) + i64(e["epoch"])
    return hashlib.sha256(b + b"".join(text(e[n].encode()) for n in TEXTS) + i64(micros(e))).digest()

data = open(sys.argv[1], encoding="utf-8", newline="") if len(sys.argv) > 1 else open(0, encoding="utf-8", newline="")
first = data.readline()
lines = (json.loads(l) for l in itertools.chain([first], data) if l.strip()) if first.startswith("{") else csv.DictReader(data, csv.reader([first]).__next__())
chains, wrong = {}, 0
for e in lines:
    at = int(e["source_id"]), int(e["source_partition"])
    seq, prev = chains.get(at, (int(e["seq"]) - 1, raw(e["prev_hash"])) if e["kind"] == "archive" else (0, b""))
    for ok, says in [(int(e["seq"]) == seq + 1, f"comes after seq {seq}"), (raw(e["prev_hash"]) == prev, "prev_hash is not the hash of the entry before"),
                     (entry_hash(e) == raw(e["hash"]), "its fields do not make its hash")]:
        if not ok: wrong += 1; print(f"wrong: source {at[0]} partition {at[1]} seq {e['seq']}: {says}")
    chains[at] = int(e["seq"]), raw(e["hash"])
for (source, partition), (seq, h) in sorted(chains.items()): print(f"source {source} partition {partition}: seq {seq} {h.hex()}")
sys.exit(3 if wrong or not chains else 0)
