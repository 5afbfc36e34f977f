/*
 * tirpc: libtirpc's portmapper interface as a command, for the tests of package clients.
 *
 *     tirpc CALL ARGUMENT... [ , CALL ARGUMENT... ]...
 *
 * Each CALL is the libtirpc function of that name; several, separated by a
 * lone comma, share one process and with it the caches of the library. What a
 * call returns is printed as one line, or as one line for each element. The exit
 * status is 0 whenever the calls could be made, whatever they returned.
 * Programs and versions are decimal, addresses universal addresses, transport
 * addresses hexadecimal octets, "-" a null netconfig.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <netconfig.h>
#include <rpc/rpc.h>
#include <rpc/pmap_clnt.h>
#include <rpc/pmap_prot.h>
#include <rpc/pmap_rmt.h>
#include <rpc/rpcb_clnt.h>
#include <rpc/rpcb_prot.h>

/* The one procedure besides NULL of the services made by serve and svc_create. */
#define PROC_ECHO 1
#define TEXT_MAX 8192

static const struct timeval patience = { 5, 0 };

static void fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "tirpc: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	exit(2);
}

static unsigned long number(const char *s)
{
	char *end;
	unsigned long n = strtoul(s, &end, 10);

	if (end == s || *end != '\0')
		fail("%s: not a number", s);
	return n;
}

/* netconf returns the entry of /etc/netconfig for netid, NULL for "-". */
static struct netconfig *netconf(const char *netid)
{
	struct netconfig *nconf;

	if (strcmp(netid, "-") == 0)
		return NULL;
	nconf = getnetconfigent(netid);
	if (nconf == NULL)
		fail("%s: no such netid in /etc/netconfig", netid);
	return nconf;
}

static struct netbuf *taddr(const struct netconfig *nconf, const char *uaddr)
{
	struct netbuf *address = uaddr2taddr(nconf, uaddr);

	if (address == NULL)
		fail("%s: not a universal address of netid %s", uaddr, nconf->nc_netid);
	return address;
}

static struct sockaddr_in ipv4(const char *host)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(PMAPPORT) };

	if (inet_pton(AF_INET, host, &sin.sin_addr) != 1)
		fail("%s: not an IPv4 address", host);
	return sin;
}

static void print_bool(bool_t b)
{
	printf("%s\n", b ? "TRUE" : "FALSE");
}

static void print_stat(enum clnt_stat stat)
{
	printf("%s\n", clnt_sperrno(stat));
}

/* xdr_text codes the argument and the result of PROC_ECHO. */
static bool_t xdr_text(XDR *xdrs, char **text)
{
	return xdr_string(xdrs, text, TEXT_MAX);
}

/* The result of the call in hand, in memory that XDR allocated: rpc_broadcast frees it. */
static char *result;

static void print_echo(CLIENT *client, const char *text)
{
	char *argument = (char *)text;
	enum clnt_stat stat;

	stat = clnt_call(client, PROC_ECHO, (xdrproc_t)xdr_text, (caddr_t)&argument,
	    (xdrproc_t)xdr_text, (caddr_t)&result, patience);
	if (stat != RPC_SUCCESS)
		printf("%s\n", clnt_sperror(client, "call"));
	else
		printf("%s\n", result);
	result = NULL;
	clnt_destroy(client);
}

/* --- the portmapper, versions 3 and 4 --- */

static void do_rpcb_set(char **a)
{
	struct netconfig *nconf = netconf(a[2]);

	print_bool(rpcb_set(number(a[0]), number(a[1]), nconf, taddr(nconf, a[3])));
}

static void do_rpcb_unset(char **a)
{
	print_bool(rpcb_unset(number(a[0]), number(a[1]), netconf(a[2])));
}

static void do_rpcb_getaddr(char **a)
{
	struct netconfig *nconf = netconf(a[2]);
	struct sockaddr_storage space;
	struct netbuf address = { .maxlen = sizeof space, .buf = &space };

	if (rpcb_getaddr(number(a[0]), number(a[1]), nconf, &address, a[3]))
		printf("%s\n", taddr2uaddr(nconf, &address));
	else
		print_stat(rpc_createerr.cf_stat);
}

static void do_rpcb_getmaps(char **a)
{
	rpcblist *item = rpcb_getmaps(netconf(a[0]), a[1]);

	if (item == NULL)
		print_stat(rpc_createerr.cf_stat);
	for (; item != NULL; item = item->rpcb_next)
		printf("%u %u %s %s %s\n", item->rpcb_map.r_prog, item->rpcb_map.r_vers,
		    item->rpcb_map.r_netid, item->rpcb_map.r_addr, item->rpcb_map.r_owner);
}

static void do_rpcb_gettime(char **a)
{
	time_t then = 0, now = time(NULL);

	if (!rpcb_gettime(a[0], &then))
		printf("FALSE\n");
	else if (then >= now - 1 && then <= now + 5)
		printf("the time\n");
	else
		printf("%ld, but it is %ld\n", (long)then, (long)now);
}

static void do_rpcb_taddr2uaddr(char **a)
{
	unsigned char octets[256];
	struct netbuf address = { .maxlen = sizeof octets, .buf = octets };
	const char *hex = a[1];
	char *uaddr;

	for (; address.len < sizeof octets && sscanf(hex, "%2hhx", &octets[address.len]) == 1; hex += 2)
		address.len++;
	uaddr = rpcb_taddr2uaddr(netconf(a[0]), &address);
	if (uaddr == NULL) {
		printf("NULL\n");
		return;
	}
	/* The local transport takes any octets for a path. */
	for (; *uaddr != '\0'; uaddr++)
		printf(*uaddr > ' ' && *uaddr <= '~' ? "%c" : "\\x%02hhx", *uaddr);
	printf("\n");
}

static void do_rpcb_uaddr2taddr(char **a)
{
	struct netbuf *address = rpcb_uaddr2taddr(netconf(a[0]), a[1]);
	unsigned int i;

	if (address == NULL) {
		printf("NULL\n");
		return;
	}
	for (i = 0; i < address->len; i++)
		printf("%02x", ((unsigned char *)address->buf)[i]);
	printf(" of %u\n", address->maxlen);
}

static void do_rpcb_rmtcall(char **a)
{
	struct netconfig *nconf = netconf(a[0]);
	struct sockaddr_storage space;
	struct netbuf address = { .maxlen = sizeof space, .buf = &space };
	enum clnt_stat stat;

	stat = rpcb_rmtcall(nconf, a[1], number(a[2]), number(a[3]), PROC_ECHO,
	    (xdrproc_t)xdr_text, (caddr_t)&a[4], (xdrproc_t)xdr_text, (caddr_t)&result,
	    (struct timeval){ number(a[5]), 0 }, &address);
	if (stat != RPC_SUCCESS)
		print_stat(stat);
	else
		printf("%s says %s\n", taddr2uaddr(nconf, &address), result);
}

/* --- the portmapper, version 2 --- */

static int protocol(const char *name)
{
	return strcmp(name, "tcp") == 0 ? IPPROTO_TCP : strcmp(name, "udp") == 0 ? IPPROTO_UDP : (int)number(name);
}

static void do_pmap_set(char **a)
{
	print_bool(pmap_set(number(a[0]), number(a[1]), protocol(a[2]), number(a[3])));
}

static void do_pmap_unset(char **a)
{
	print_bool(pmap_unset(number(a[0]), number(a[1])));
}

static void do_pmap_getport(char **a)
{
	struct sockaddr_in host = ipv4(a[0]);
	u_short port = pmap_getport(&host, number(a[1]), number(a[2]), protocol(a[3]));

	if (port == 0)
		print_stat(rpc_createerr.cf_stat);
	else
		printf("%u\n", port);
}

static void do_pmap_getmaps(char **a)
{
	struct sockaddr_in host = ipv4(a[0]);
	struct pmaplist *item = pmap_getmaps(&host);

	for (; item != NULL; item = item->pml_next)
		printf("%lu %lu %lu %lu\n", item->pml_map.pm_prog, item->pml_map.pm_vers,
		    item->pml_map.pm_prot, item->pml_map.pm_port);
}

static void do_pmap_rmtcall(char **a)
{
	struct sockaddr_in host = ipv4(a[0]);
	enum clnt_stat stat;
	u_long port = 0;

	stat = pmap_rmtcall(&host, number(a[1]), number(a[2]), PROC_ECHO,
	    (xdrproc_t)xdr_text, (caddr_t)&a[3], (xdrproc_t)xdr_text, (caddr_t)&result,
	    (struct timeval){ number(a[4]), 0 }, &port);
	if (stat != RPC_SUCCESS)
		print_stat(stat);
	else
		printf("port %lu says %s\n", port, result);
}

/* --- clients --- */

static void do_clnt_create(char **a)
{
	CLIENT *client = clnt_create(a[0], number(a[1]), number(a[2]), a[3]);

	if (client == NULL)
		print_stat(rpc_createerr.cf_stat);
	else
		print_echo(client, a[4]);
}

static void do_clnt_create_vers(char **a)
{
	rpcvers_t version = 0;
	CLIENT *client = clnt_create_vers(a[0], number(a[1]), &version, number(a[2]), number(a[3]), a[4]);

	if (client == NULL) {
		print_stat(rpc_createerr.cf_stat);
		return;
	}
	printf("version %u\n", version);
	clnt_destroy(client);
}

static void do_clnt_tp_create(char **a)
{
	CLIENT *client = clnt_tp_create(a[0], number(a[1]), number(a[2]), netconf(a[3]));

	if (client == NULL)
		print_stat(rpc_createerr.cf_stat);
	else
		print_echo(client, a[4]);
}

/*
 * first_reply ends the broadcast with the first answer. from is the address of
 * the service as the portmapper reports it, not that of the portmapper.
 */
static bool_t first_reply(caddr_t text, struct netbuf *from, struct netconfig *nconf)
{
	printf("%s %s says %s\n", nconf->nc_netid, taddr2uaddr(nconf, from), *(char **)text);
	return TRUE;
}

static void do_rpc_broadcast(char **a)
{
	print_stat(rpc_broadcast(number(a[0]), number(a[1]), PROC_ECHO,
	    (xdrproc_t)xdr_text, (caddr_t)&a[3], (xdrproc_t)xdr_text, (caddr_t)&result,
	    (resultproc_t)first_reply, a[2]));
}

/* rpc_broadcast with a last argument for how long to wait: for what nobody answers. */
static void do_rpc_broadcast_exp(char **a)
{
	int milliseconds = number(a[4]);

	print_stat(rpc_broadcast_exp(number(a[0]), number(a[1]), PROC_ECHO,
	    (xdrproc_t)xdr_text, (caddr_t)&a[3], (xdrproc_t)xdr_text, (caddr_t)&result,
	    (resultproc_t)first_reply, milliseconds, milliseconds, a[2]));
}

/* --- services --- */

static rpcprog_t served_program;
static rpcvers_t served_versions[8];
static int served_count;

static void dispatch(struct svc_req *request, SVCXPRT *transport)
{
	static char argument[TEXT_MAX + 1], reply[TEXT_MAX + 64];
	char *argument_text = argument, *reply_text = reply;

	switch (request->rq_proc) {
	case NULLPROC:
		svc_sendreply(transport, (xdrproc_t)xdr_void, NULL);
		return;
	case PROC_ECHO:
		if (!svc_getargs(transport, (xdrproc_t)xdr_text, &argument_text)) {
			svcerr_decode(transport);
			return;
		}
		/* The credential shows what a portmapper that forwards makes of it. */
		snprintf(reply, sizeof reply, "%u: %s (flavor %d)", request->rq_vers, argument,
		    request->rq_cred.oa_flavor);
		svc_sendreply(transport, (xdrproc_t)xdr_text, (caddr_t)&reply_text);
		return;
	}
	svcerr_noproc(transport);
}

/*
 * unregister ends the service the way a careful server does. It may do so in
 * the signal handler because svc_run is waiting in poll whenever the test sends
 * the signal.
 */
static void unregister(int number)
{
	int i;

	(void)number;
	for (i = 0; i < served_count; i++)
		svc_unreg(served_program, served_versions[i]);
	_exit(0);
}

/* serving tells the test, which reads standard output, that the service is up. */
static void serving(void)
{
	signal(SIGTERM, unregister);
	printf("serving\n");
	fflush(stdout);
	svc_run();
	fail("svc_run returned");
}

static void parse_served(char *program, char *versions)
{
	char *version;

	served_program = number(program);
	for (version = strtok(versions, ","); version != NULL && served_count < 8; version = strtok(NULL, ","))
		served_versions[served_count++] = number(version);
}

/* listener binds a socket of the transport to the universal address. */
static int listener(struct netconfig *nconf, struct netbuf *address)
{
	struct sockaddr *sa = address->buf;
	int stream = nconf->nc_semantics != NC_TPI_CLTS, on = 1;
	int fd = socket(sa->sa_family, stream ? SOCK_STREAM : SOCK_DGRAM, 0);

	if (fd < 0)
		fail("socket: %s", strerror(errno));
	if (sa->sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(fd, sa, address->len) < 0)
		fail("bind %s: %s", nconf->nc_netid, strerror(errno));
	if (stream && listen(fd, 16) < 0)
		fail("listen %s: %s", nconf->nc_netid, strerror(errno));
	return fd;
}

/* serve PROGRAM VERSION[,VERSION...] NETID=UADDR...: svc_tli_create and svc_reg */
static void do_serve(char **a)
{
	char *where;
	int i;

	parse_served(a[0], a[1]);
	for (a += 2; *a != NULL; a++) {
		struct netconfig *nconf;
		struct netbuf *address;
		SVCXPRT *transport;

		where = strchr(*a, '=');
		if (where == NULL)
			fail("%s: want NETID=UADDR", *a);
		*where++ = '\0';
		nconf = netconf(*a);
		address = taddr(nconf, where);
		transport = svc_tli_create(listener(nconf, address), nconf, NULL, 0, 0);
		if (transport == NULL)
			fail("svc_tli_create %s %s", *a, where);
		for (i = 0; i < served_count; i++)
			if (!svc_reg(transport, served_program, served_versions[i], dispatch, nconf))
				fail("svc_reg %u on %s refused", served_versions[i], *a);
	}
	serving();
}

/* svc_create PROGRAM VERSION NETTYPE: on ports that the library chooses */
static void do_svc_create(char **a)
{
	parse_served(a[0], a[1]);
	printf("%d transports\n", svc_create(dispatch, served_program, served_versions[0], a[2]));
	serving();
}

static const struct call {
	const char *name;
	int arguments; /* -1: all that follow */
	void (*run)(char **arguments);
} calls[] = {
	{ "rpcb_set", 4, do_rpcb_set },                 /* PROGRAM VERSION NETID UADDR */
	{ "rpcb_unset", 3, do_rpcb_unset },             /* PROGRAM VERSION NETID */
	{ "rpcb_getaddr", 4, do_rpcb_getaddr },         /* PROGRAM VERSION NETID HOST */
	{ "rpcb_getmaps", 2, do_rpcb_getmaps },         /* NETID HOST */
	{ "rpcb_gettime", 1, do_rpcb_gettime },         /* HOST */
	{ "rpcb_taddr2uaddr", 2, do_rpcb_taddr2uaddr }, /* NETID OCTETS */
	{ "rpcb_uaddr2taddr", 2, do_rpcb_uaddr2taddr }, /* NETID UADDR */
	{ "rpcb_rmtcall", 6, do_rpcb_rmtcall },         /* NETID HOST PROGRAM VERSION TEXT SECONDS */
	{ "pmap_set", 4, do_pmap_set },                 /* PROGRAM VERSION PROTOCOL PORT */
	{ "pmap_unset", 2, do_pmap_unset },             /* PROGRAM VERSION */
	{ "pmap_getport", 4, do_pmap_getport },         /* HOST PROGRAM VERSION PROTOCOL */
	{ "pmap_getmaps", 1, do_pmap_getmaps },         /* HOST */
	{ "pmap_rmtcall", 5, do_pmap_rmtcall },         /* HOST PROGRAM VERSION TEXT SECONDS */
	{ "clnt_create", 5, do_clnt_create },           /* HOST PROGRAM VERSION NETTYPE TEXT */
	{ "clnt_create_vers", 5, do_clnt_create_vers }, /* HOST PROGRAM LOW HIGH NETTYPE */
	{ "clnt_tp_create", 5, do_clnt_tp_create },     /* HOST PROGRAM VERSION NETID TEXT */
	{ "rpc_broadcast", 4, do_rpc_broadcast },       /* PROGRAM VERSION NETTYPE TEXT */
	{ "rpc_broadcast_exp", 5, do_rpc_broadcast_exp }, /* ... MILLISECONDS */
	{ "serve", -1, do_serve },
	{ "svc_create", 3, do_svc_create },             /* PROGRAM VERSION NETTYPE */
	{ NULL, 0, NULL },
};

static const struct call *find(const char *name)
{
	const struct call *call;

	for (call = calls; call->name != NULL; call++)
		if (strcmp(call->name, name) == 0)
			return call;
	fail("%s: no such call", name);
	return NULL;
}

int main(int argc, char **argv)
{
	int first = 1, next;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 2)
		fail("which call?");
	for (; first < argc; first = next + 1) {
		const struct call *call = find(argv[first]);

		for (next = first + 1; next < argc && strcmp(argv[next], ",") != 0; next++)
			;
		argv[next] = NULL;
		if (call->arguments >= 0 && call->arguments != next - first - 1)
			fail("%s: want %d arguments", call->name, call->arguments);
		call->run(argv + first + 1);
	}
	return 0;
}
