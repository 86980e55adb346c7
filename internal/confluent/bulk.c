//go:build linux

#include "bulk.h"

#include <string.h>
#include <sys/types.h>

// The few functions of librdkafka that are called here. Which one is linked in, and how, is the Go client's affair; its header is not on our
// path. They are part of librdkafka's stable interface (rdkafka.h). Weak: one that is missing makes bulk_there say so.
#define FROM_LIBRDKAFKA extern __attribute__((weak))
typedef struct rd_kafka_s rd_kafka_t;
typedef struct rd_kafka_topic_s rd_kafka_topic_t;
typedef struct rd_kafka_queue_s rd_kafka_queue_t;
typedef struct rd_kafka_op_s rd_kafka_event_t;
typedef struct rd_kafka_headers_s rd_kafka_headers_t;
typedef struct rd_kafka_message_s {
	int err;
	rd_kafka_topic_t *rkt;
	int32_t partition;
	void *payload;
	size_t len;
	void *key;
	size_t key_len;
	int64_t offset;
	void *_private;
} rd_kafka_message_t;

FROM_LIBRDKAFKA rd_kafka_queue_t *rd_kafka_queue_new(rd_kafka_t *rk);
FROM_LIBRDKAFKA void rd_kafka_queue_destroy(rd_kafka_queue_t *q);
FROM_LIBRDKAFKA rd_kafka_queue_t *rd_kafka_queue_get_partition(rd_kafka_t *rk, const char *topic, int32_t partition);
FROM_LIBRDKAFKA void rd_kafka_queue_forward(rd_kafka_queue_t *src, rd_kafka_queue_t *dst);
FROM_LIBRDKAFKA rd_kafka_event_t *rd_kafka_queue_poll(rd_kafka_queue_t *q, int timeout_ms);
FROM_LIBRDKAFKA int rd_kafka_event_type(const rd_kafka_event_t *ev);
FROM_LIBRDKAFKA const rd_kafka_message_t *rd_kafka_event_message_next(rd_kafka_event_t *ev);
FROM_LIBRDKAFKA int rd_kafka_event_error(rd_kafka_event_t *ev);
FROM_LIBRDKAFKA const char *rd_kafka_event_error_string(rd_kafka_event_t *ev);
FROM_LIBRDKAFKA int rd_kafka_event_error_is_fatal(rd_kafka_event_t *ev);
FROM_LIBRDKAFKA void rd_kafka_event_destroy(rd_kafka_event_t *ev);
FROM_LIBRDKAFKA int64_t rd_kafka_message_timestamp(const rd_kafka_message_t *m, int *tstype);
FROM_LIBRDKAFKA int32_t rd_kafka_message_leader_epoch(const rd_kafka_message_t *m);
FROM_LIBRDKAFKA int rd_kafka_message_headers(const rd_kafka_message_t *m, rd_kafka_headers_t **hs);
FROM_LIBRDKAFKA size_t rd_kafka_header_cnt(const rd_kafka_headers_t *hs);
FROM_LIBRDKAFKA int rd_kafka_header_get_all(const rd_kafka_headers_t *hs, size_t idx, const char **name, const void **value, size_t *size);
FROM_LIBRDKAFKA rd_kafka_headers_t *rd_kafka_headers_new(size_t n);
FROM_LIBRDKAFKA int rd_kafka_header_add(rd_kafka_headers_t *hs, const char *name, ssize_t name_size, const void *value, ssize_t value_size);
FROM_LIBRDKAFKA void rd_kafka_headers_destroy(rd_kafka_headers_t *hs);
FROM_LIBRDKAFKA rd_kafka_topic_t *rd_kafka_topic_new(rd_kafka_t *rk, const char *name, void *conf);
FROM_LIBRDKAFKA void rd_kafka_topic_destroy(rd_kafka_topic_t *rkt);
FROM_LIBRDKAFKA int rd_kafka_producev(rd_kafka_t *rk, ...);

enum { EVENT_FETCH = 0x2, EVENT_ERROR = 0x8, TIMESTAMP_NOT_AVAILABLE = 0, MSG_F_COPY = 0x2 };
enum { V_END, V_TOPIC, V_RKT, V_PARTITION, V_VALUE, V_KEY, V_OPAQUE, V_MSGFLAGS, V_TIMESTAMP, V_HEADER, V_HEADERS };

int bulk_there(void) {
	return rd_kafka_queue_new && rd_kafka_queue_destroy && rd_kafka_queue_get_partition && rd_kafka_queue_forward && rd_kafka_queue_poll &&
	       rd_kafka_event_type && rd_kafka_event_message_next && rd_kafka_event_error && rd_kafka_event_error_string && rd_kafka_event_error_is_fatal &&
	       rd_kafka_event_destroy && rd_kafka_message_timestamp && rd_kafka_message_leader_epoch && rd_kafka_message_headers && rd_kafka_header_cnt &&
	       rd_kafka_header_get_all && rd_kafka_headers_new && rd_kafka_header_add && rd_kafka_headers_destroy && rd_kafka_topic_new &&
	       rd_kafka_topic_destroy && rd_kafka_producev;
}

void *bulk_queue_new(void *rk) { return rd_kafka_queue_new(rk); }

void bulk_queue_free(void *queue, bulk_poll *p) {
	if (p->event) rd_kafka_event_destroy(p->event);
	p->event = p->message = NULL;
	rd_kafka_queue_destroy(queue);
}

// bulk_forward has what is fetched of a partition come to queue.
int bulk_forward(void *rk, void *queue, const char *topic, int32_t partition) {
	rd_kafka_queue_t *q = rd_kafka_queue_get_partition(rk, topic, partition);
	if (!q) return 0;
	rd_kafka_queue_forward(q, queue);
	rd_kafka_queue_destroy(q);
	return 1;
}

static char *put(char *at, const void *bytes, size_t n) {
	if (n) memcpy(at, bytes, n);
	return at + n;
}

static char *put32(char *at, int32_t v) { return put(at, &v, sizeof v); }

// take writes a message to buf; 0 if it does not fit.
static int take(const rd_kafka_message_t *m, bulk_record *r, char *buf, size_t size, bulk_poll *p) {
	rd_kafka_headers_t *hs = NULL;
	const char *name;
	const void *value;
	size_t n = 0, len, need = m->key_len + m->len;
	if (rd_kafka_message_headers(m, &hs) == 0 && hs) {
		n = rd_kafka_header_cnt(hs);
		for (size_t i = 0; i < n; i++) {
			rd_kafka_header_get_all(hs, i, &name, &value, &len);
			need += 8 + strlen(name) + (value ? len : 0);
		}
	}
	if (need > size - p->used) {
		p->need = (int64_t)need;
		return 0;
	}
	int type = TIMESTAMP_NOT_AVAILABLE;
	char *at = buf + p->used;
	r->offset = m->offset;
	r->timestamp = rd_kafka_message_timestamp(m, &type);
	if (type == TIMESTAMP_NOT_AVAILABLE) r->timestamp = -1;
	r->partition = m->partition;
	r->epoch = rd_kafka_message_leader_epoch(m);
	r->key = m->key ? (int32_t)m->key_len : -1;
	r->value = m->payload ? (int32_t)m->len : -1;
	r->headers = (int32_t)n;
	r->size = (int32_t)need;
	at = put(at, m->key, m->key ? m->key_len : 0);
	at = put(at, m->payload, m->payload ? m->len : 0);
	for (size_t i = 0; i < n; i++) {
		rd_kafka_header_get_all(hs, i, &name, &value, &len);
		at = put32(at, (int32_t)strlen(name));
		at = put32(at, value ? (int32_t)len : -1);
		at = put(at, name, strlen(name));
		at = put(at, value, value ? len : 0);
	}
	p->used += need;
	return 1;
}

// bulk_read waits for one record at most wait_ms, and takes as many as there are without waiting: up to an error, until most, or until one does
// not fit, which is kept in p for the next call.
int bulk_read(void *queue, int wait_ms, bulk_record *records, int most, char *buf, size_t size, bulk_poll *p) {
	int n = 0;
	p->code = p->fatal = 0;
	p->need = 0;
	p->used = 0;
	while (n < most) {
		rd_kafka_event_t *ev = p->event;
		const rd_kafka_message_t *m = p->message;
		if (!ev) {
			ev = rd_kafka_queue_poll(queue, n == 0 ? wait_ms : 0);
			if (!ev) break;
			if (rd_kafka_event_type(ev) == EVENT_ERROR) {
				const char *text = rd_kafka_event_error_string(ev);
				p->code = rd_kafka_event_error(ev);
				p->fatal = rd_kafka_event_error_is_fatal(ev);
				strncpy(p->text, text ? text : "", sizeof p->text - 1);
				rd_kafka_event_destroy(ev);
				if (p->code) break;
				continue;
			}
			m = rd_kafka_event_type(ev) == EVENT_FETCH ? rd_kafka_event_message_next(ev) : NULL;
			if (!m) {
				rd_kafka_event_destroy(ev);
				continue;
			}
			if (m->err) { // it has no record
				p->code = m->err;
				strncpy(p->text, m->payload ? (const char *)m->payload : "", sizeof p->text - 1);
				rd_kafka_event_destroy(ev);
				break;
			}
		}
		if (!take(m, &records[n], buf, size, p)) {
			p->event = ev;
			p->message = (void *)m;
			break;
		}
		n++;
		p->event = p->message = NULL;
		rd_kafka_event_destroy(ev);
	}
	return n;
}

void *bulk_topic(void *rk, const char *name) { return rd_kafka_topic_new(rk, name, NULL); }

void bulk_topic_free(void *topic) { rd_kafka_topic_destroy(topic); }

// bulk_produce hands records [from, to) over and returns the first that was not taken, to if there is none; code says why.
int bulk_produce(void *rk, void *topics, const bulk_record *records, int from, int to, const char *buf, int32_t *code) {
	rd_kafka_topic_t **rkts = topics;
	const char *at = buf;
	for (int i = 0; i < from; i++) at += records[i].size;
	for (int i = from; i < to; i++) {
		const bulk_record *r = &records[i];
		const char *key = at, *value = key + (r->key > 0 ? r->key : 0), *h = value + (r->value > 0 ? r->value : 0);
		rd_kafka_headers_t *hs = r->headers ? rd_kafka_headers_new((size_t)r->headers) : NULL;
		for (int j = 0; j < r->headers; j++) {
			int32_t n, v;
			memcpy(&n, h, 4);
			memcpy(&v, h + 4, 4);
			h += 8;
			// A NULL value is null, a pointer with 0 bytes is empty.
			rd_kafka_header_add(hs, h, n, v < 0 ? NULL : h + n, v < 0 ? 0 : v);
			h += n + (v > 0 ? v : 0);
		}
		int err = rd_kafka_producev(rk, V_RKT, rkts[r->epoch], V_PARTITION, r->partition, V_MSGFLAGS, MSG_F_COPY, V_VALUE, r->value < 0 ? NULL : (void *)value,
		    r->value < 0 ? (size_t)0 : (size_t)r->value, V_KEY, r->key < 0 ? NULL : (void *)key, r->key < 0 ? (size_t)0 : (size_t)r->key, V_TIMESTAMP,
		    r->timestamp, V_HEADERS, hs, V_END);
		if (err) {
			if (hs) rd_kafka_headers_destroy(hs);
			*code = err;
			return i;
		}
		at += r->size;
	}
	*code = 0;
	return to;
}
