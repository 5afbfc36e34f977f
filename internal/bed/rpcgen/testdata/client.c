/* client NETWORK HOST PORT none|sys: calls every procedure of calc.x and prints what came of it, one line a call. */
#include "calc.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static CLIENT *client;
static struct timeval patience = {20, 0};

/* failed prints why a call has no results; 0 if it has. */
static int failed(const char *what, enum clnt_stat status)
{
	struct rpc_err why;

	if (status == RPC_SUCCESS)
		return 0;
	clnt_geterr(client, &why);
	printf("%s: ", what);
	switch (status) {
	case RPC_PROGUNAVAIL:
		printf("PROG_UNAVAIL\n");
		break;
	case RPC_PROGVERSMISMATCH:
		printf("PROG_MISMATCH %u %u\n", (u_int)why.re_vers.low, (u_int)why.re_vers.high);
		break;
	case RPC_PROCUNAVAIL:
		printf("PROC_UNAVAIL\n");
		break;
	case RPC_CANTDECODEARGS:
		printf("GARBAGE_ARGS\n");
		break;
	case RPC_SYSTEMERROR:
		printf("SYSTEM_ERR\n");
		break;
	case RPC_AUTHERROR:
		printf("AUTH_ERROR %d\n", (int)why.re_why);
		break;
	default:
		printf("%s\n", clnt_sperrno(status));
	}
	return 1;
}

static void evaluate(const char *label, int n, operation how, quad_t value, double *scale, int negate)
{
	term terms[MAXTERMS];
	sum s;
	outcome out;
	int i;

	for (i = 0; i < n; i++) {
		terms[i].how = i == 0 ? ADD : how;
		terms[i].value = i == 0 ? 1000 : value;
	}
	s.label = (char *)label;
	s.terms.terms_len = n;
	s.terms.terms_val = terms;
	s.scale = scale;
	memcpy(s.tag, "t\0g\xff!", TAGSIZE);
	s.negate = negate;
	memset(&out, 0, sizeof(out));
	if (failed("evaluate", clnt_call(client, EVALUATE, (xdrproc_t)xdr_sum, (caddr_t)&s, (xdrproc_t)xdr_outcome, (caddr_t)&out, patience)))
		return;
	switch (out.what) {
	case FINE:
		printf("evaluate: %.17g \"%s\" %d\n", out.outcome_u.result.number, out.outcome_u.result.label,
		       memcmp(out.outcome_u.result.tag, s.tag, TAGSIZE) == 0);
		break;
	case DIVISION_BY_ZERO:
		printf("evaluate: division by zero in term %u\n", out.outcome_u.term_index);
		break;
	default:
		printf("evaluate: verdict %d\n", (int)out.what);
	}
}

static void reverse(int n)
{
	item *items = calloc(n + 1, sizeof(item));
	list in = n > 0 ? items : NULL, out = NULL;
	int i, count = 0;

	for (i = 0; i < n; i++) {
		items[i].number = ((u_quad_t)i << 40) + i;
		items[i].half = i / 2.0f;
		items[i].next = i + 1 < n ? &items[i + 1] : NULL;
	}
	if (failed("reverse", clnt_call(client, REVERSE, (xdrproc_t)xdr_list, (caddr_t)&in, (xdrproc_t)xdr_list, (caddr_t)&out, patience)))
		return;
	for (i = n - 1; out != NULL; out = out->next, i--)
		count += i >= 0 && out->number == items[i].number && out->half == items[i].half;
	printf("reverse: %d of %d, ends at %d\n", count, n, i);
}

static void who(void)
{
	caller c;
	u_int i;

	memset(&c, 0, sizeof(c));
	if (failed("who", clnt_call(client, WHO, (xdrproc_t)xdr_void, NULL, (xdrproc_t)xdr_caller, (caddr_t)&c, patience)))
		return;
	printf("who: \"%s\" %u %u", c.machine, c.uid, c.gid);
	for (i = 0; i < c.gids.gids_len; i++)
		printf(" %u", c.gids.gids_val[i]);
	printf("\n");
}

static void echo(u_int n)
{
	opaque_data in, out;
	u_int i;

	in.opaque_data_len = n;
	in.opaque_data_val = malloc(n + 1);
	for (i = 0; i < n; i++)
		in.opaque_data_val[i] = (char)(i * 7);
	memset(&out, 0, sizeof(out));
	if (failed("echo", clnt_call(client, ECHO, (xdrproc_t)xdr_opaque_data, (caddr_t)&in, (xdrproc_t)xdr_opaque_data, (caddr_t)&out, patience)))
		return;
	printf("echo: %u octets, %d\n", out.opaque_data_len,
	       out.opaque_data_len == n && memcmp(in.opaque_data_val, out.opaque_data_val, n) == 0);
}

/* plain makes a call with one word, or without arguments if there is none, and without results. */
static void plain(const char *what, u_int prog, u_int vers, u_int proc, int *argument)
{
	enum clnt_stat status;

	clnt_control(client, CLSET_PROG, (char *)&prog);
	clnt_control(client, CLSET_VERS, (char *)&vers);
	status = clnt_call(client, proc, argument != NULL ? (xdrproc_t)xdr_int : (xdrproc_t)xdr_void, (caddr_t)argument,
			   (xdrproc_t)xdr_void, NULL, patience);
	if (!failed(what, status))
		printf("%s: done\n", what);
}

static void all(int stream)
{
	double half = 0.5;
	int words[] = {FAIL_SYSTEM, FAIL_WEAK, 99};

	plain("null", CALC, CALC_NEW, NULLPROC, NULL);
	evaluate("", 1, ADD, 0, NULL, 0);
	evaluate("a", 2, ADD, 9007199254740993LL, NULL, 0);
	evaluate("abc", 3, SUBTRACT, -5, &half, 0);
	evaluate("abcd", 8, MULTIPLY, 1000000007, NULL, 1);
	evaluate("a label of thirty-two octets....", 2, DIVIDE, 3, &half, 1);
	evaluate("zero", 4, DIVIDE, 0, NULL, 0);
	evaluate("none", 0, ADD, 0, NULL, 0);
	evaluate("no such operation", 2, (operation)77, 1, NULL, 0);
	reverse(0);
	reverse(1);
	reverse(300);
	who();
	echo(0);
	echo(1);
	echo(3);
	echo(4001);
	if (stream)
		echo(300001);
	plain("system", CALC, CALC_NEW, FAIL, &words[0]);
	plain("weak", CALC, CALC_NEW, FAIL, &words[1]);
	plain("garbage", CALC, CALC_NEW, FAIL, &words[2]);
	plain("cut short", CALC, CALC_NEW, EVALUATE, &words[2]);
	plain("no procedure", CALC, CALC_NEW, 77, NULL);
	plain("no version", CALC, 3, NULLPROC, NULL);
	plain("no program", CALC + 1, CALC_NEW, NULLPROC, NULL);
	plain("old", CALC, CALC_OLD, OLD_VERSION, NULL);
	plain("old without it", CALC, CALC_OLD, WHO, NULL);
}

int main(int argc, char **argv)
{
	struct addrinfo hints, *address;
	struct netbuf server;
	gid_t groups[] = {4, 4294967294U, 24};
	int fd, stream;

	if (argc != 5) {
		fprintf(stderr, "usage: client udp|tcp HOST PORT none|sys\n");
		return 2;
	}
	stream = strcmp(argv[1], "tcp") == 0;
	memset(&hints, 0, sizeof(hints));
	hints.ai_socktype = stream ? SOCK_STREAM : SOCK_DGRAM;
	hints.ai_flags = AI_NUMERICHOST;
	if (getaddrinfo(argv[2], argv[3], &hints, &address) != 0) {
		perror("getaddrinfo");
		return 1;
	}
	fd = socket(address->ai_family, address->ai_socktype, 0);
	if (fd < 0 || (stream && connect(fd, address->ai_addr, address->ai_addrlen) < 0)) {
		perror("connect");
		return 1;
	}
	server.buf = address->ai_addr;
	server.len = server.maxlen = address->ai_addrlen;
	if (stream)
		client = clnt_vc_create(fd, &server, CALC, CALC_NEW, 0, 0);
	else
		client = clnt_dg_create(fd, &server, CALC, CALC_NEW, 65000, 65000);
	if (client == NULL) {
		clnt_pcreateerror("client");
		return 1;
	}
	if (strcmp(argv[4], "sys") == 0)
		client->cl_auth = authunix_create("client.example", 4242, 100, 3, groups);
	all(stream);
	return 0;
}
