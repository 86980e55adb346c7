// What bulk.c does for Go: many records in one call. Records lie one behind the other in a buffer of the caller's.
#ifndef EXACTLY_BULK_H
#define EXACTLY_BULK_H

#include <stddef.h>
#include <stdint.h>

// A record read, or to be produced: where its bytes are is the sum of the lengths before it. -1: null. headers counts what follows key and
// value, each header as two int32, the lengths of name and value, and the bytes of both.
typedef struct {
	int64_t offset;
	int64_t timestamp; // ms; -1: none
	int32_t partition;
	int32_t epoch; // leader epoch; of one to be produced: index of its topic
	int32_t key, value;
	int32_t headers;
	int32_t size; // bytes of all of it
} bulk_record;

// How a poll ended, beside the records it brought.
typedef struct {
	int32_t code;  // of an error; 0: none
	int32_t fatal;
	int64_t need;  // bytes of a record that did not fit; it comes next
	size_t used;   // bytes written
	char text[512];
	void *event, *message; // of the record that did not fit
} bulk_poll;

int bulk_there(void);
void *bulk_queue_new(void *rk);
void bulk_queue_free(void *queue, bulk_poll *p);
int bulk_forward(void *rk, void *queue, const char *topic, int32_t partition);
int bulk_read(void *queue, int wait_ms, bulk_record *records, int most, char *buf, size_t size, bulk_poll *p);

void *bulk_topic(void *rk, const char *name);
void bulk_topic_free(void *topic);
int bulk_produce(void *rk, void *topics, const bulk_record *records, int from, int to, const char *buf, int32_t *code);

#endif
