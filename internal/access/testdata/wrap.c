/* Asks libwrap as rpcbind does (rpcbind 1.2.6, src/security.c: a daemon name and the caller's address, nothing of the
 * server) about each address that comes on standard input: 1 it may, 0 it may not. The files are the two arguments. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <syslog.h>
#include <tcpd.h>

int allow_severity = LOG_INFO;
int deny_severity = LOG_WARNING;
extern char *hosts_allow_table, *hosts_deny_table;
extern int resident;

int main(int argc, char **argv)
{
	char line[128];

	if (argc != 3)
		return 2;
	hosts_allow_table = argv[1];
	hosts_deny_table = argv[2];
	resident = 1;
	while (fgets(line, sizeof line, stdin)) {
		struct sockaddr_storage ss;
		struct sockaddr_in *v4 = (struct sockaddr_in *)&ss;
		struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&ss;
		struct request_info req;

		line[strcspn(line, "\n")] = 0;
		memset(&ss, 0, sizeof ss);
		if (inet_pton(AF_INET, line, &v4->sin_addr) == 1)
			ss.ss_family = AF_INET;
		else if (inet_pton(AF_INET6, line, &v6->sin6_addr) == 1)
			ss.ss_family = AF_INET6;
		else
			return 3;
		request_init(&req, RQ_DAEMON, "rpcbind", RQ_CLIENT_SIN, &ss, 0);
		sock_methods(&req);
		printf("%d\n", hosts_access(&req) != 0);
		fflush(stdout);
	}
	return 0;
}
