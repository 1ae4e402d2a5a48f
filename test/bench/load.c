/*
 * The load client at the speed of the kernel: one thread and one epoll descriptor, which it asks again and again instead
 * of sleeping, so that no server pays for waking it up. Prints `ready` when the warm-up is over and the result as JSON at
 * the end; fails when a byte is not what it must be. load.ts does the same where no C compiler is installed. Compiled
 * with `-DTLS` it speaks TLS 1.3, trusting everybody.
 *
 * Usage: load echo|bulk|fill|accept|resume|idle PORT CONNECTIONS [SECONDS] [WARM-UP SECONDS] [MESSAGE BYTES]
 *   [SERVER'S PROCESS]
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifdef TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

enum { chunk_size = 65536, most_events = 512 };

struct connection {
  int fd;
  /* The message in flight, and how much of it went and came back; with bulk, `received` is the place in the chunk. */
  const uint8_t *message;
  size_t sent, received;
  uint32_t sequence;
#ifdef TLS
  SSL *tls;
  int resumes;
#endif
};

typedef void handler(struct connection *);

static const char *mode;
static int port, connections, patience, server_process;
static double seconds, warm_up;
static size_t message_size;

/* The chunk of chunk.ts twice, so that a message and what is received may go past its end. */
static uint8_t chunk[2 * chunk_size];
static uint8_t buffer[chunk_size];
static struct connection *all;
static int epoll;
static uint64_t count;

static void fail(const char *what, int error) {
  fprintf(stderr, "load %s: %s%s%s\n", mode, what, error ? ": " : "", error ? strerror(error) : "");
  exit(1);
}

static int check(int result, const char *what) {
  if (result < 0) fail(what, errno);
  return result;
}

static double read_clock(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

/* CPU time of a process that may be anywhere in its work. */
static double cpu_of(pid_t process) {
  clockid_t clock;
  const int error = clock_getcpuclockid(process, &clock);
  if (error) fail("clock_getcpuclockid", error);
  return read_clock(clock);
}

static double now(void) {
  return read_clock(CLOCK_MONOTONIC);
}

static struct sockaddr_in loopback(int last, int port) {
  const struct in_addr address = {htonl(INADDR_LOOPBACK - 1 + last)};
  return (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = address, .sin_port = htons(port)};
}

static int is_mode(const char *name) {
  return strcmp(mode, name) == 0;
}

/*
 * What both ways of speaking have: `pull` puts into `buffer` what came, or as much as there is room for, 0 bytes when
 * nothing is there for now. `offer` sends what the kernel takes, perhaps nothing; an event comes when it takes more.
 */
#ifdef TLS

static SSL_CTX *context;
static SSL_SESSION *session;

static int on_session(SSL *tls, SSL_SESSION *given) {
  (void)tls;
  /* The first one will do for all, as a copy: one that was used is not used again. */
  if (session == NULL) session = SSL_SESSION_dup(given);
  return 0;
}

static int trust(X509_STORE_CTX *store, void *argument) {
  (void)store, (void)argument;
  return 1;
}

static void begin_tls(struct connection *it) {
  if (context == NULL) {
    signal(SIGPIPE, SIG_IGN);
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_cert_verify_callback(context, trust, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* As many records as one system call brings. */
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, 2 * chunk_size);
    if (is_mode("resume")) {
      SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
      SSL_CTX_sess_set_new_cb(context, on_session);
    }
  }
  check(fcntl(it->fd, F_SETFL, O_NONBLOCK), "fcntl");
  it->tls = SSL_new(context);
  SSL_set_fd(it->tls, it->fd);
  SSL_set_connect_state(it->tls);
  it->resumes = session != NULL;
  if (it->resumes) {
    SSL_SESSION *copy = SSL_SESSION_dup(session);
    SSL_set_session(it->tls, copy);
    SSL_SESSION_free(copy);
  }
}

static size_t outcome(struct connection *it, int result) {
  if (result > 0) return result;
  const int error = SSL_get_error(it->tls, result);
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return 0;
  if (error == SSL_ERROR_SSL) fail(ERR_error_string(ERR_peek_error(), NULL), 0);
  fail("the server closed a connection", 0);
  return 0;
}

static size_t pull(struct connection *it) {
  size_t received = 0;
  /* A read brings one record. */
  for (size_t more = 1; more > 0 && received < sizeof buffer; received += more) {
    more = outcome(it, SSL_read(it->tls, buffer + received, sizeof buffer - received));
  }
  return received;
}

static size_t offer(struct connection *it, const void *bytes, size_t length) {
  return outcome(it, SSL_write(it->tls, bytes, length));
}

static void close_connection(struct connection *it) {
  if (it->resumes != SSL_session_reused(it->tls)) fail("the server did not resume a session", 0);
  SSL_shutdown(it->tls);
  SSL_free(it->tls);
  close(it->fd);
}

#else

static void begin_tls(struct connection *it) {
  (void)it;
}

static size_t pull(struct connection *it) {
  const ssize_t received = recv(it->fd, buffer, sizeof buffer, MSG_DONTWAIT);
  if (received < 0 && errno == EAGAIN) return 0;
  if (received == 0) fail("the server closed a connection", 0);
  return check(received, "recv");
}

static size_t offer(struct connection *it, const void *bytes, size_t length) {
  const ssize_t sent = send(it->fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
  return sent < 0 && errno == EAGAIN ? 0 : check(sent, "send");
}

static void close_connection(struct connection *it) {
  close(it->fd);
}

#endif

static void open_connection(struct connection *it) {
  static int opened;
  const int yes = 1;
  const struct sockaddr_in server = loopback(1, port);
  /* A closed connection keeps its port for a minute, and one address has too few of them. */
  const struct sockaddr_in self = loopback(2 + opened++ % 200, 0);
  /* One that always has more to send would never let others have their turn. */
  const uint32_t once = is_mode("fill") ? 0 : EPOLLET;
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | once, .data.ptr = it};
  it->fd = check(socket(AF_INET, SOCK_STREAM, 0), "socket");
  setsockopt(it->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
  setsockopt(it->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  check(bind(it->fd, (const struct sockaddr *)&self, sizeof self), "bind");
  check(connect(it->fd, (const struct sockaddr *)&server, sizeof server), "connect");
  check(epoll_ctl(epoll, EPOLL_CTL_ADD, it->fd, &event), "epoll_ctl");
  begin_tls(it);
}

/* Sends of the message what the kernel takes; an event comes when it takes more. */
static void push(struct connection *it) {
  for (size_t sent = 1; sent > 0 && it->sent < message_size;) {
    sent = offer(it, it->message + it->sent, message_size - it->sent);
    it->sent += sent;
  }
}

/* Begins a message unlike the one before it, and unlike those of other connections. */
static void ping(struct connection *it) {
  it->message = chunk + ((it - all) * 7919 + ++it->sequence * 31) % chunk_size;
  it->sent = it->received = 0;
  push(it);
}

/* Whether the message has come back whole. A short read leaves nothing behind. */
static int pong(struct connection *it) {
  for (size_t received = sizeof buffer; received == sizeof buffer && it->received < message_size;) {
    received = pull(it);
    if (received > message_size - it->received) fail("more came back than was sent", 0);
    if (memcmp(buffer, it->message + it->received, received) != 0) fail("a message came back changed", 0);
    it->received += received;
  }
  return it->received == message_size;
}

static void on_echo(struct connection *it) {
  push(it);
  if (!pong(it)) return;
  count++;
  ping(it);
}

static void on_bulk(struct connection *it) {
  for (size_t received = sizeof buffer; received == sizeof buffer;) {
    received = pull(it);
    if (memcmp(buffer, chunk + it->received, received) != 0) fail("bytes are lost or out of place", 0);
    it->received = (it->received + received) % chunk_size;
    count += received;
  }
}

static void on_accept(struct connection *it) {
  push(it);
  if (!pong(it)) return;
  count++;
  close_connection(it);
  open_connection(it);
  ping(it);
}

static void on_fill(struct connection *it) {
  if (pull(it) > 0) fail("a server answered that only receives", 0);
  const size_t sent = offer(it, chunk + it->sent, chunk_size - it->sent);
  it->sent = (it->sent + sent) % chunk_size;
  count += sent;
}

static void on_idle(struct connection *it) {
  if (it->message != NULL && it->received < message_size) count += pong(it);
}

/* One batch of events; 0 when there were none. */
static int turn(handler *on_event, int timeout) {
  struct epoll_event events[most_events];
  const int ready = check(epoll_wait(epoll, events, most_events, timeout), "epoll_wait");
  for (int i = 0; i < ready; i++) on_event(events[i].data.ptr);
  return ready;
}

static void measure(handler *on_event) {
  for (const double end = now() + warm_up; now() < end;) turn(on_event, patience);
  puts("ready");
  count = 0;
  const double start = now(), cpu = cpu_of(0), server_cpu = cpu_of(server_process);
  double time = start, idle = 0;
  /* The runner decides how long nothing at all may come back. */
  while (time < start + seconds || count == 0) {
    const int ready = turn(on_event, patience);
    const double before = time;
    time = now();
    if (ready == 0) idle += time - before;
  }
  const double spent = time - start;
  const double busy = (cpu_of(0) - cpu) / spent, server_busy = (cpu_of(server_process) - server_cpu) / spent;
  printf("{\"count\":%llu,\"seconds\":%.6f", (unsigned long long)count, spent);
  if (patience == 0) printf(",\"idle\":%.4f,\"busy\":%.4f", idle / spent, busy);
  if (server_process > 0) printf(",\"serverBusy\":%.4f", server_busy);
  puts("}");
}

/* Says `ready` when all are open; for a line on standard input, sends one message on each and says so again. */
static void idle(void) {
  puts("ready");
  if (getchar() == EOF) return;
  for (int i = 0; i < connections; i++) ping(&all[i]);
  while (count < (uint64_t)connections) turn(on_idle, -1);
  puts("ready");
  while (getchar() != EOF) continue;
}

int main(int argc, char **argv) {
  const double defaults[] = {0, 0, 0, 1, 3, 0.5, 64, 0};
  double arguments[8];
  for (int i = 2; i < 8; i++) arguments[i] = i < argc ? atof(argv[i]) : defaults[i];
  mode = argc > 1 ? argv[1] : "";
  port = arguments[2];
  connections = arguments[3];
  seconds = arguments[4];
  warm_up = arguments[5];
  const int closes = is_mode("accept") || is_mode("resume");
  message_size = closes ? 1 : arguments[6];
  server_process = arguments[7];
  if (message_size < 1 || message_size > chunk_size) fail("a message has 1 to 65536 bytes", 0);
  /* With one core alone, waiting busily would cost the server its time. */
  patience = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 0 : -1;
  setvbuf(stdout, NULL, _IOLBF, 0);

  for (uint32_t i = 0; i < sizeof chunk; i++) {
    const uint32_t mixed = i % chunk_size * 2654435761u;
    chunk[i] = ((mixed ^ mixed >> 15) * 2246822519u) >> 24;
  }
  struct rlimit files;
  check(getrlimit(RLIMIT_NOFILE, &files), "getrlimit");
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);

  epoll = check(epoll_create1(0), "epoll_create1");
  all = calloc(connections, sizeof *all);
  for (int i = 0; i < connections; i++) open_connection(&all[i]);
  if (is_mode("idle")) idle();
  else if (is_mode("bulk")) measure(on_bulk);
  else if (is_mode("fill")) measure(on_fill);
  else if (is_mode("echo") || closes) {
    for (int i = 0; i < connections; i++) ping(&all[i]);
    measure(closes ? on_accept : on_echo);
  } else fail("the first argument is echo, bulk, fill, accept, resume or idle", 0);
  return 0;
}
