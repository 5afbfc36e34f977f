/*
 * The least that can answer a portmapper's calls on Linux: what gportmap is measured against in make bench. It decodes
 * nothing but the xid, the version and the procedure, looks nothing up and answers every caller the same, so its time is
 * the kernel's.
 *
 *	responder udp PORT            datagrams, by recvmmsg and sendmmsg
 *	responder tcp PORT ENTRIES    records of one fragment, by epoll; DUMP has so many entries
 *	responder local PATH ENTRIES  the same on a local socket
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { BATCH = 32, ROOM = 9000, EVENTS = 128, READ = 16384, CALL_MIN = 40, DUMP = 4, PORT = 2049 };

static char *dump;       /* a whole record with a DUMP of version 2 */
static size_t dump_size;

static void die(const char *what) { perror(what); exit(1); }

static uint32_t word(const char *p, int i) { uint32_t w; memcpy(&w, p + 4 * i, 4); return ntohl(w); }
static void put(char *p, int i, uint32_t v) { v = htonl(v); memcpy(p + 4 * i, &v, 4); }

/* answer writes the reply to a call: port 2049, or 127.0.0.1.8.1 in versions 3 and 4. */
static size_t answer(char *out, const char *call)
{
	memcpy(out, call, 4);
	put(out, 1, 1);                         /* REPLY */
	memset(out + 8, 0, 16);                 /* accepted, AUTH_NONE, SUCCESS */
	if (word(call, 4) == 2) {
		put(out, 6, PORT);
		return 28;
	}
	put(out, 6, 13);
	memcpy(out + 28, "127.0.0.1.8.1\0\0", 16);
	return 44;
}

static void serve_udp(int fd)
{
	static char in[BATCH][ROOM], out[BATCH][64];
	static struct sockaddr_in from[BATCH];
	static struct iovec riov[BATCH], wiov[BATCH];
	static struct mmsghdr rd[BATCH], wr[BATCH];
	for (int i = 0; i < BATCH; i++) {
		riov[i] = (struct iovec){in[i], ROOM};
		wiov[i] = (struct iovec){out[i], 0};
		rd[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_iov = &riov[i], .msg_iovlen = 1};
		wr[i].msg_hdr = (struct msghdr){.msg_iov = &wiov[i], .msg_iovlen = 1};
	}
	for (;;) {
		for (int i = 0; i < BATCH; i++)
			rd[i].msg_hdr.msg_namelen = sizeof from[i];
		int n = recvmmsg(fd, rd, BATCH, MSG_WAITFORONE, NULL), m = 0;
		if (n < 0 && errno != EINTR)
			die("recvmmsg");
		for (int i = 0; i < n; i++) {
			if (rd[i].msg_len < CALL_MIN)
				continue;
			wiov[m].iov_len = answer(out[m], in[i]);
			wr[m].msg_hdr.msg_name = &from[i];
			wr[m].msg_hdr.msg_namelen = rd[i].msg_hdr.msg_namelen;
			m++;
		}
		if (m > 0)
			sendmmsg(fd, wr, m, 0);
	}
}

struct conn { int fd; size_t held; char in[READ]; };

static int write_all(int fd, const char *p, size_t n)
{
	while (n > 0) {
		ssize_t w = write(fd, p, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			return -1;
		p += w;
		n -= w;
	}
	return 0;
}

/* serve_conn answers what one read brings. */
static int serve_conn(struct conn *c)
{
	static char out[READ * 2];
	ssize_t n = read(c->fd, c->in + c->held, READ - c->held);
	if (n <= 0)
		return -1;
	size_t end = c->held + n, at = 0, size = 0;
	while (end - at >= 4) {
		size_t record = word(c->in + at, 0) & 0x7fffffff;
		if (record > READ - 4 || record < CALL_MIN)
			return -1;
		if (end - at < 4 + record)
			break;
		const char *call = c->in + at + 4;
		if (word(call, 5) == DUMP) {
			memcpy(dump + 4, call, 4);
			if (write_all(c->fd, out, size) || write_all(c->fd, dump, dump_size))
				return -1;
			size = 0;
		} else {
			size_t r = answer(out + size + 4, call);
			put(out + size, 0, 0x80000000u | r);
			size += 4 + r;
		}
		at += 4 + record;
	}
	c->held = end - at;
	memmove(c->in, c->in + at, c->held);
	return write_all(c->fd, out, size);
}

static void serve_stream(int listener)
{
	int ep = epoll_create1(0);
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL}, evs[EVENTS];
	if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev))
		die("epoll");
	for (;;) {
		int n = epoll_wait(ep, evs, EVENTS, -1);
		for (int i = 0; i < n; i++) {
			struct conn *c = evs[i].data.ptr;
			if (c == NULL) {
				int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
				if (fd < 0)
					continue;
				c = calloc(1, sizeof *c);
				c->fd = fd;
				ev.data.ptr = c;
				epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
			} else if (serve_conn(c)) {
				close(c->fd);
				free(c);
			}
		}
	}
}

static void make_dump(int entries)
{
	dump_size = 4 + 24 + 20 * (size_t)entries + 4;
	dump = calloc(1, dump_size);
	put(dump, 0, 0x80000000u | (dump_size - 4));
	put(dump, 2, 1);
	for (int i = 0; i < entries; i++) {
		char *e = dump + 28 + 20 * (size_t)i;
		put(e, 0, 1), put(e, 1, 0x20000000 + i), put(e, 2, 1), put(e, 3, 6), put(e, 4, PORT);
	}
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	if (argc < 3)
		return 64;
	int local = !strcmp(argv[1], "local"), udp = !strcmp(argv[1], "udp"), one = 1;
	int fd = socket(local ? AF_UNIX : AF_INET, udp ? SOCK_DGRAM : SOCK_STREAM, 0);
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(local ? 0 : atoi(argv[2]))};
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	strncpy(un.sun_path, argv[2], sizeof un.sun_path - 1);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, local ? (struct sockaddr *)&un : (struct sockaddr *)&in, local ? sizeof un : sizeof in))
		die("bind");
	if (udp)
		serve_udp(fd);
	make_dump(argc > 3 ? atoi(argv[3]) : 0);
	if (listen(fd, 4096))
		die("listen");
	serve_stream(fd);
}
