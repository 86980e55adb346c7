package peer;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Writes its share of the output's partitions to Postgres: batches of inserts, and the offsets in the same transaction. */
final class Sink implements Runnable {
  private final int index;
  private final int of;
  private final String brokers;
  private final String topic;
  private final String url;

  Sink(int index, int of, String brokers, String topic, String url) {
    this.index = index;
    this.of = of;
    this.brokers = brokers;
    this.topic = topic;
    this.url = url;
  }

  @Override
  public void run() {
    Properties p = new Properties();
    p.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
    p.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed");
    p.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
    p.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
    p.put(ConsumerConfig.MAX_POLL_RECORDS_CONFIG, 5000);
    try (KafkaConsumer<byte[], byte[]> c = new KafkaConsumer<>(p, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        Connection db = DriverManager.getConnection(url)) {
      db.setAutoCommit(false);
      List<TopicPartition> mine = new ArrayList<>();
      for (PartitionInfo i : c.partitionsFor(topic)) {
        if (i.partition() % of == index) {
          mine.add(new TopicPartition(topic, i.partition()));
        }
      }
      c.assign(mine);
      c.seekToBeginning(mine); // a first start: the table of offsets is empty
      PreparedStatement row = db.prepareStatement("INSERT INTO enriched_clicks (source_id, source_partition, source_offset, user_id, session_id, "
          + "\"timestamp\", url, ip, country, geo_build) VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, 'peer')");
      PreparedStatement offset = db.prepareStatement("INSERT INTO sink_offsets AS o (topic, partition, next_offset, rows) VALUES (?, ?, ?, ?) "
          + "ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset, rows = o.rows + excluded.rows");
      Clicks.Click click = new Clicks.Click();
      for (;;) {
        ConsumerRecords<byte[], byte[]> records = c.poll(Duration.ofMillis(100));
        if (records.isEmpty()) {
          continue;
        }
        for (ConsumerRecord<byte[], byte[]> r : records) {
          click.read(r.value(), true);
          row.setInt(1, r.partition());
          row.setLong(2, r.offset());
          row.setLong(3, click.user);
          row.setString(4, click.session.toString());
          row.setTimestamp(5, new Timestamp(click.at));
          row.setString(6, click.url.toString());
          row.setObject(7, click.ip.toString(), Types.OTHER);
          row.setString(8, click.country.toString());
          row.addBatch();
        }
        row.executeBatch();
        for (TopicPartition tp : records.partitions()) {
          List<ConsumerRecord<byte[], byte[]>> of = records.records(tp);
          offset.setString(1, topic);
          offset.setInt(2, tp.partition());
          offset.setLong(3, of.get(of.size() - 1).offset() + 1);
          offset.setLong(4, of.size());
          offset.addBatch();
        }
        offset.executeBatch();
        db.commit();
      }
    } catch (Exception e) {
      throw new IllegalStateException(e);
    }
  }
}
