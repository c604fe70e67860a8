/* A foreign load generator: libmosquitto, MQTT 5, QoS 1 over mutual TLS. It knows nothing of Plimsoll: it publishes the
 * messages of a file, one after another, with a bounded number in flight, and counts PUBACKs by reason code.
 *
 *   load HOST PORT CA TOPIC_PREFIX TOPIC_SUFFIX IN_FLIGHT CLIENT_DIR...
 *
 * Each CLIENT_DIR holds tls.pem, tls.key and messages.bin (each message: length as u32 little endian, then its bytes);
 * its topic is TOPIC_PREFIX, the directory's name, TOPIC_SUFFIX. All clients connect first; the clock starts when the
 * last is connected and stops at the last PUBACK. One line of JSON goes to standard output. */
#include <mosquitto.h>
#include <mqtt_protocol.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct client {
    struct mosquitto *mosq;
    unsigned char *bytes;
    size_t len, at;
    char topic[256];
    long sent, acked, refused, total;
    int connected, in_flight_max, failed;
    pthread_t thread;
};

static pthread_barrier_t all_connected;
static const char *host, *ca;
static int port;

static void die(const char *what, const char *why) {
    fprintf(stderr, "load: %s: %s\n", what, why);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void on_connect(struct mosquitto *m, void *user, int reason, int flags, const mosquitto_property *p) {
    struct client *c = user;
    (void)m, (void)flags, (void)p;
    if (reason != 0) die(c->topic, mosquitto_reason_string(reason));
    c->connected = 1;
}

static void on_disconnect(struct mosquitto *m, void *user, int reason, const mosquitto_property *p) {
    struct client *c = user;
    (void)m, (void)p;
    if (reason != 0) {
        fprintf(stderr, "load: %s: disconnected: %s\n", c->topic, mosquitto_reason_string(reason));
        c->failed = 1;
    }
}

static void on_publish(struct mosquitto *m, void *user, int id, int reason, const mosquitto_property *p) {
    struct client *c = user;
    (void)m, (void)id, (void)p;
    c->acked++;
    if (reason >= 0x80) c->refused++;
}

static void publish_next(struct client *c) {
    unsigned char *head = c->bytes + c->at;
    size_t len = head[0] | head[1] << 8 | head[2] << 16 | (size_t)head[3] << 24;
    int rc = mosquitto_publish_v5(c->mosq, NULL, c->topic, (int)len, head + 4, 1, 0, NULL);
    if (rc != MOSQ_ERR_SUCCESS) die(c->topic, mosquitto_strerror(rc));
    c->at += 4 + len;
    c->sent++;
}

static void *run(void *user) {
    struct client *c = user;
    int rc;
    while (!c->connected)
        if ((rc = mosquitto_loop(c->mosq, 100, 1)) != 0) die(c->topic, mosquitto_strerror(rc));
    pthread_barrier_wait(&all_connected);
    while (c->acked < c->total && !c->failed) {
        while (c->at < c->len && c->sent - c->acked < c->in_flight_max) publish_next(c);
        if ((rc = mosquitto_loop(c->mosq, 100, 1)) != 0) {
            fprintf(stderr, "load: %s: %s\n", c->topic, mosquitto_strerror(rc));
            c->failed = 1;
        }
    }
    return NULL;
}

static void read_messages(struct client *c, const char *dir) {
    char path[1024];
    snprintf(path, sizeof path, "%s/messages.bin", dir);
    FILE *f = fopen(path, "rb");
    if (!f) die(path, "cannot open");
    fseek(f, 0, SEEK_END);
    c->len = (size_t)ftell(f);
    rewind(f);
    c->bytes = malloc(c->len + 1);
    if (!c->bytes || fread(c->bytes, 1, c->len, f) != c->len) die(path, "cannot read");
    fclose(f);
    for (size_t at = 0; at < c->len; c->total++) {
        unsigned char *h = c->bytes + at;
        at += 4 + (h[0] | h[1] << 8 | h[2] << 16 | (size_t)h[3] << 24);
    }
}

static void prepare(struct client *c, const char *dir, const char *prefix, const char *suffix) {
    char cert[1024], key[1024];
    const char *name = strrchr(dir, '/') ? strrchr(dir, '/') + 1 : dir;
    snprintf(cert, sizeof cert, "%s/tls.pem", dir);
    snprintf(key, sizeof key, "%s/tls.key", dir);
    snprintf(c->topic, sizeof c->topic, "%s%s%s", prefix, name, suffix);
    read_messages(c, dir);
    c->mosq = mosquitto_new(name, true, c);
    mosquitto_int_option(c->mosq, MOSQ_OPT_PROTOCOL_VERSION, MQTT_PROTOCOL_V5);
    mosquitto_int_option(c->mosq, MOSQ_OPT_SEND_MAXIMUM, c->in_flight_max);
    mosquitto_connect_v5_callback_set(c->mosq, on_connect);
    mosquitto_disconnect_v5_callback_set(c->mosq, on_disconnect);
    mosquitto_publish_v5_callback_set(c->mosq, on_publish);
    int rc = mosquitto_tls_set(c->mosq, ca, NULL, cert, key, NULL);
    if (rc == 0) rc = mosquitto_tls_opts_set(c->mosq, 1, "tlsv1.3", NULL);
    /* The certificate names the gateway, not the loopback address that we dial. The chain is still checked. */
    if (rc == 0) rc = mosquitto_tls_insecure_set(c->mosq, true);
    if (rc == 0) rc = mosquitto_connect_bind_v5(c->mosq, host, port, 60, NULL, NULL);
    if (rc != 0) die(dir, mosquitto_strerror(rc));
}

int main(int argc, char **argv) {
    if (argc < 8) die("usage", "load HOST PORT CA TOPIC_PREFIX TOPIC_SUFFIX IN_FLIGHT CLIENT_DIR...");
    host = argv[1], port = atoi(argv[2]), ca = argv[3];
    int n = argc - 7;
    struct client *clients = calloc((size_t)n, sizeof *clients);
    mosquitto_lib_init();
    pthread_barrier_init(&all_connected, NULL, (unsigned)n + 1);
    for (int i = 0; i < n; i++) {
        clients[i].in_flight_max = atoi(argv[6]);
        prepare(&clients[i], argv[7 + i], argv[4], argv[5]);
        pthread_create(&clients[i].thread, NULL, run, &clients[i]);
    }
    pthread_barrier_wait(&all_connected);
    double start = now();
    long acked = 0, refused = 0, total = 0, bytes = 0;
    for (int i = 0; i < n; i++) {
        pthread_join(clients[i].thread, NULL);
        acked += clients[i].acked, refused += clients[i].refused, total += clients[i].total;
        bytes += (long)clients[i].len - 4 * clients[i].total;
    }
    double seconds = now() - start;
    printf("{\"clients\":%d,\"messages\":%ld,\"acked\":%ld,\"refused\":%ld,\"payload_bytes\":%ld,\"seconds\":%.4f}\n", n,
           total, acked, refused, bytes, seconds);
    return acked == total && refused == 0 ? 0 : 1;
}
