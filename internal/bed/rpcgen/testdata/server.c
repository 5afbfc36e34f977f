/* server NETWORK HOST: serves calc.x with libtirpc's server on a port that the kernel chooses, without a portmapper. It
   prints "port N" when it serves. NETWORK is udp or tcp, HOST an address. */
#include "calc.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

extern void calc_2(struct svc_req *, SVCXPRT *);
extern void calc_4(struct svc_req *, SVCXPRT *);

u_int *old_version_2_svc(void *argument, struct svc_req *request)
{
	static u_int version = 2;

	(void)argument;
	(void)request;
	return &version;
}

outcome *evaluate_4_svc(sum *s, struct svc_req *request)
{
	static outcome out;
	static char label[MAXLABEL + 1];
	double number = 0;
	u_int i;

	(void)request;
	memset(&out, 0, sizeof(out));
	if (s->terms.terms_len == 0) {
		out.what = NO_TERMS;
		return &out;
	}
	for (i = 0; i < s->terms.terms_len; i++) {
		double value = (double)s->terms.terms_val[i].value;

		switch (s->terms.terms_val[i].how) {
		case ADD:
			number += value;
			break;
		case SUBTRACT:
			number -= value;
			break;
		case MULTIPLY:
			number *= value;
			break;
		case DIVIDE:
			if (value == 0) {
				out.what = DIVISION_BY_ZERO;
				out.outcome_u.term_index = i;
				return &out;
			}
			number /= value;
			break;
		default:
			svcerr_decode(request->rq_xprt);
			return NULL;
		}
	}
	if (s->scale != NULL)
		number *= *s->scale;
	if (s->negate)
		number = -number;
	out.what = FINE;
	out.outcome_u.result.number = number;
	strcpy(label, s->label);
	out.outcome_u.result.label = label;
	memcpy(out.outcome_u.result.tag, s->tag, TAGSIZE);
	return &out;
}

list *reverse_4_svc(list *l, struct svc_req *request)
{
	static list reversed;
	item *from = *l;

	(void)request;
	reversed = NULL;
	while (from != NULL) {
		item *next = from->next;

		from->next = reversed;
		reversed = from;
		from = next;
	}
	*l = NULL; /* the items are freed by no one: this server lives for one test */
	return &reversed;
}

caller *who_4_svc(void *argument, struct svc_req *request)
{
	static caller who;
	static char nobody[] = "";
	struct authunix_parms *claimed = (struct authunix_parms *)request->rq_clntcred;

	(void)argument;
	memset(&who, 0, sizeof(who));
	who.machine = nobody;
	if (request->rq_cred.oa_flavor == AUTH_SYS) {
		who.machine = claimed->aup_machname;
		who.uid = claimed->aup_uid;
		who.gid = claimed->aup_gid;
		who.gids.gids_len = claimed->aup_len;
		who.gids.gids_val = (u_int *)claimed->aup_gids;
	}
	return &who;
}

void *fail_4_svc(failure *how, struct svc_req *request)
{
	switch (*how) {
	case FAIL_SYSTEM:
		svcerr_systemerr(request->rq_xprt);
		break;
	case FAIL_WEAK:
		svcerr_weakauth(request->rq_xprt);
		break;
	default:
		svcerr_decode(request->rq_xprt);
	}
	return NULL;
}

opaque_data *echo_4_svc(opaque_data *data, struct svc_req *request)
{
	(void)request;
	return data;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

int main(int argc, char **argv)
{
	struct addrinfo hints, *address;
	struct sockaddr_storage bound;
	socklen_t size = sizeof(bound);
	SVCXPRT *transport;
	char port[32];
	int fd;

	if (argc != 3) {
		fprintf(stderr, "usage: server udp|tcp HOST\n");
		return 2;
	}
	memset(&hints, 0, sizeof(hints));
	hints.ai_socktype = strcmp(argv[1], "udp") == 0 ? SOCK_DGRAM : SOCK_STREAM;
	hints.ai_flags = AI_NUMERICHOST;
	if (getaddrinfo(argv[2], "0", &hints, &address) != 0)
		die("getaddrinfo");
	fd = socket(address->ai_family, address->ai_socktype, 0);
	if (fd < 0 || bind(fd, address->ai_addr, address->ai_addrlen) < 0)
		die("bind");
	if (hints.ai_socktype == SOCK_STREAM) {
		if (listen(fd, 16) < 0)
			die("listen");
		transport = svc_vc_create(fd, 0, 0);
	} else {
		transport = svc_dg_create(fd, 65000, 65000);
	}
	if (transport == NULL || !svc_reg(transport, CALC, CALC_OLD, calc_2, NULL) || !svc_reg(transport, CALC, CALC_NEW, calc_4, NULL)) {
		fprintf(stderr, "server: libtirpc doesn't make the service\n");
		return 1;
	}
	if (getsockname(fd, (struct sockaddr *)&bound, &size) < 0 ||
	    getnameinfo((struct sockaddr *)&bound, size, NULL, 0, port, sizeof(port), NI_NUMERICSERV) != 0)
		die("getsockname");
	printf("port %s\n", port);
	fflush(stdout);
	svc_run();
	return 1;
}
