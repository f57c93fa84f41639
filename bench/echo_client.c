/*
 * A load client for echo servers: N loopback connections, each with one message in flight (send it, wait for all of
 * its echo, compare every byte, send the next), for a bounded time, in one thread over epoll. Prints one line of JSON.
 *
 *     echo_client HOST PORT CONNECTIONS MESSAGE_BYTES SECONDS [WARMUP_SECONDS]
 *
 * Where cpuSeconds comes near seconds, the client was the limit and not the server.
 * Nothing is counted during the warm-up. Exits with 1 when anything went wrong: the numbers then mean nothing.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 65536, MAX_MESSAGE_BYTES = 16 << 20, MAX_SECONDS = 600, EVENTS_PER_WAIT = 256 };
enum { CONNECT_TIMEOUT_SECONDS = 5, DRAIN_SECONDS = 5 };

struct connection {
	int fd;
	bool writable_wanted;
	uint64_t sequence; /* of the message in flight */
	uint64_t sent_at_ns;
	size_t sent, received;
	uint8_t *message;
};

static size_t message_bytes;
static uint8_t *inbox; /* one for all: bytes are compared as they come and not kept */
static int poller;
static size_t live, errors;
static uint64_t round_trips;
static bool counting, stopping;

/* --- Latencies: 64 buckets for each power of two, so at most 1.6% off --- */

enum { SUB_BITS = 6, SUB_BUCKETS = 1 << SUB_BITS, BUCKETS = (64 - SUB_BITS) * SUB_BUCKETS };
static uint64_t histogram[BUCKETS];

static size_t bucket_of(uint64_t ns)
{
	if (ns < SUB_BUCKETS)
		return ns;
	unsigned shift = 63 - (unsigned)__builtin_clzll(ns) - SUB_BITS;
	return (size_t)shift * SUB_BUCKETS + (ns >> shift);
}

static double bucket_microseconds(size_t bucket)
{
	if (bucket < 2 * SUB_BUCKETS)
		return (double)bucket / 1e3;
	unsigned shift = (unsigned)(bucket / SUB_BUCKETS) - 1;
	uint64_t low = (uint64_t)(bucket % SUB_BUCKETS + SUB_BUCKETS) << shift;
	return ((double)low + (double)(1ULL << shift) / 2) / 1e3;
}

static double percentile(double fraction)
{
	uint64_t below = 0;

	for (size_t i = 0; i < BUCKETS; i++) {
		below += histogram[i];
		if ((double)below >= fraction * (double)round_trips)
			return bucket_microseconds(i);
	}
	return 0;
}

/* --- Connections --- */

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

static double cpu_seconds(void)
{
	struct rusage used;

	getrusage(RUSAGE_SELF, &used);
	return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
	       (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void drop(struct connection *connection, const char *why)
{
	if (errors++ < 5)
		fprintf(stderr, "echo_client: %s\n", why);
	close(connection->fd);
	connection->fd = -1;
	live--;
}

/* Every message differs from the one before it and from other connections', so that a stale echo is noticed. */
static void compose(struct connection *connection)
{
	uint64_t state = (connection->sequence + 1) * 0x9e3779b97f4a7c15ULL ^ (uint64_t)connection->fd << 48;

	for (size_t i = 0; i < message_bytes; i += sizeof state) {
		size_t left = message_bytes - i;
		memcpy(connection->message + i, &state, left < sizeof state ? left : sizeof state);
		state = state * 6364136223846793005ULL + 1442695040888963407ULL;
	}
	connection->sent = connection->received = 0;
	connection->sent_at_ns = now_ns();
}

/* False when the connection is gone. */
static bool send_more(struct connection *connection)
{
	while (connection->sent < message_bytes) {
		ssize_t n = send(connection->fd, connection->message + connection->sent, message_bytes - connection->sent,
				 MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			drop(connection, strerror(errno));
			return false;
		}
		connection->sent += (size_t)n;
	}
	bool wanted = connection->sent < message_bytes;
	if (wanted != connection->writable_wanted) {
		struct epoll_event event = { .events = EPOLLIN | EPOLLET | (wanted ? EPOLLOUT : 0), .data.ptr = connection };
		epoll_ctl(poller, EPOLL_CTL_MOD, connection->fd, &event);
		connection->writable_wanted = wanted;
	}
	return true;
}

static void receive(struct connection *connection)
{
	/* One byte more than is due, so that bytes nobody sent are noticed, and nothing is left that no edge would tell of. */
	ssize_t n = recv(connection->fd, inbox, message_bytes - connection->received + 1, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0)
		return drop(connection, strerror(errno));
	if (n == 0)
		return drop(connection, "the server closed the connection");
	if ((size_t)n > connection->sent - connection->received)
		return drop(connection, "the server sent more than it was sent");
	if (memcmp(inbox, connection->message + connection->received, (size_t)n) != 0)
		return drop(connection, "the echo differs from the message");
	connection->received += (size_t)n;
	if (connection->received < message_bytes)
		return;
	if (counting) {
		round_trips++;
		histogram[bucket_of(now_ns() - connection->sent_at_ns)]++;
	}
	if (stopping) {
		close(connection->fd);
		connection->fd = -1;
		live--;
		return;
	}
	connection->sequence++;
	compose(connection);
	send_more(connection);
}

static void handle(struct connection *connection, uint32_t events)
{
	if (events & EPOLLOUT && !send_more(connection))
		return;
	if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		receive(connection);
}

static void run_until(uint64_t deadline_ns)
{
	struct epoll_event events[EVENTS_PER_WAIT];

	for (uint64_t now = now_ns(); live > 0 && now < deadline_ns; now = now_ns()) {
		int timeout_ms = (int)((deadline_ns - now) / 1000000) + 1;
		int ready = epoll_wait(poller, events, EVENTS_PER_WAIT, timeout_ms);
		for (int i = 0; i < ready; i++)
			handle(events[i].data.ptr, events[i].events);
	}
}

/* --- Setting up --- */

static void die(const char *what)
{
	fprintf(stderr, "echo_client: %s\n", what);
	exit(1);
}

static double number(const char *text, double least, double most, const char *name)
{
	char *end;
	double value = strtod(text, &end);

	if (*text == 0 || *end != 0 || !(value >= least && value <= most)) {
		fprintf(stderr, "echo_client: %s must be %g to %g, not \"%s\"\n", name, least, most, text);
		exit(1);
	}
	return value;
}

static bool is_loopback(const struct addrinfo *address)
{
	if (address->ai_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)address->ai_addr;
		return ntohl(in->sin_addr.s_addr) >> 24 == 127;
	}
	const struct sockaddr_in6 *in6 = (const void *)address->ai_addr;
	return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
}

static void open_connection(struct connection *connection, const struct addrinfo *address)
{
	const struct timeval patience = { .tv_sec = CONNECT_TIMEOUT_SECONDS };
	const int on = 1;

	connection->fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connection->fd < 0)
		die(strerror(errno));
	setsockopt(connection->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (connect(connection->fd, address->ai_addr, address->ai_addrlen) < 0)
		die(strerror(errno));
	struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.ptr = connection };
	if (epoll_ctl(poller, EPOLL_CTL_ADD, connection->fd, &event) < 0)
		die(strerror(errno));
	connection->message = malloc(message_bytes);
	if (!connection->message)
		die("out of memory");
	live++;
}

int main(int argc, char **argv)
{
	if (argc < 6 || argc > 7)
		die("usage: echo_client HOST PORT CONNECTIONS MESSAGE_BYTES SECONDS [WARMUP_SECONDS]");
	size_t count = (size_t)number(argv[3], 1, MAX_CONNECTIONS, "CONNECTIONS");
	message_bytes = (size_t)number(argv[4], 1, MAX_MESSAGE_BYTES, "MESSAGE_BYTES");
	double seconds = number(argv[5], 0.01, MAX_SECONDS, "SECONDS");
	double warmup_seconds = argc == 7 ? number(argv[6], 0, MAX_SECONDS, "WARMUP_SECONDS") : 0;

	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV }, *address;
	int problem = getaddrinfo(argv[1], argv[2], &hints, &address);
	if (problem)
		die(gai_strerror(problem));
	/* A mistyped host must not put load on somebody else's machine. */
	if (!is_loopback(address))
		die("HOST must be a loopback address");

	struct connection *connections = calloc(count, sizeof *connections);
	inbox = malloc(message_bytes + 1);
	poller = epoll_create1(EPOLL_CLOEXEC);
	if (!connections || !inbox || poller < 0)
		die("out of memory");
	for (size_t i = 0; i < count; i++)
		open_connection(&connections[i], address);
	for (size_t i = 0; i < count; i++) {
		compose(&connections[i]);
		send_more(&connections[i]);
	}

	run_until(now_ns() + (uint64_t)(warmup_seconds * 1e9));
	counting = true;
	double cpu_started = cpu_seconds();
	uint64_t started_ns = now_ns();
	run_until(started_ns + (uint64_t)(seconds * 1e9));
	double elapsed = (double)(now_ns() - started_ns) / 1e9;
	double cpu_used = cpu_seconds() - cpu_started;
	counting = false;
	/* Closing with an echo under way would reset the connection: each one ends after the message it is at. */
	stopping = true;
	run_until(now_ns() + DRAIN_SECONDS * 1000000000ULL);
	if (live > 0) {
		fprintf(stderr, "echo_client: %zu echoes never came\n", live);
		errors += live;
	}

	printf("{\"connections\":%zu,\"messageBytes\":%zu,\"seconds\":%.6f,\"roundTrips\":%llu,"
	       "\"roundTripsPerSecond\":%.1f,\"latencyMicroseconds\":{\"p50\":%.2f,\"p99\":%.2f,\"p99.9\":%.2f},"
	       "\"cpuSeconds\":%.3f,\"errors\":%zu}\n",
	       count, message_bytes, elapsed, (unsigned long long)round_trips,
	       elapsed > 0 ? (double)round_trips / elapsed : 0, percentile(0.50), percentile(0.99), percentile(0.999),
	       cpu_used, errors);
	return errors > 0 || round_trips == 0;
}
