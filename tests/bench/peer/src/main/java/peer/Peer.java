package peer;

import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;

/** Kafka Streams with exactly_once_v2 from the input to the output topic, and from there a sink on several connections. */
public final class Peer {
  public static void main(String[] args) throws Exception {
    String brokers = System.getenv("BENCH_BROKERS");
    String output = System.getenv("BENCH_OUTPUT");
    Clicks clicks = new Clicks(System.getenv("BENCH_GEO"));

    StreamsBuilder builder = new StreamsBuilder();
    builder.stream("user_clicks", Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
        .mapValues(clicks::enrich)
        .to(output, Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
    Properties p = new Properties();
    p.put(StreamsConfig.APPLICATION_ID_CONFIG, System.getenv("BENCH_GROUP"));
    p.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
    p.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    p.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
    p.put(StreamsConfig.STATE_DIR_CONFIG, System.getenv("BENCH_STATE"));
    p.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
    p.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 5000);
    p.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 100);
    p.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10);
    p.put(StreamsConfig.producerPrefix(ProducerConfig.BUFFER_MEMORY_CONFIG), 64 << 20);
    KafkaStreams streams = new KafkaStreams(builder.build(), p);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> Runtime.getRuntime().halt(0)));
    streams.start();

    int connections = Integer.parseInt(System.getenv("BENCH_CONNECTIONS"));
    for (int i = 0; i < connections; i++) {
      Thread t = new Thread(new Sink(i, connections, brokers, output, System.getenv("BENCH_JDBC")), "sink-" + i);
      t.setUncaughtExceptionHandler((thread, e) -> {
        e.printStackTrace();
        Runtime.getRuntime().halt(1);
      });
      t.start();
    }
  }
}
