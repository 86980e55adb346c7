package peer;

import com.maxmind.db.CHMCache;
import com.maxmind.db.MaxMindDbConstructor;
import com.maxmind.db.MaxMindDbParameter;
import com.maxmind.db.Reader;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.util.Arrays;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;
import org.apache.avro.util.Utf8;

/** Clicks in Confluent's wire format, read and written field by field: no reflection, no generic records. */
final class Clicks {
  /** The one field of a record that is asked for. */
  public record Answer(Country country) {
    @MaxMindDbConstructor
    public Answer(@MaxMindDbParameter(name = "country") Country country) {
      this.country = country;
    }
  }

  public record Country(String code) {
    @MaxMindDbConstructor
    public Country(@MaxMindDbParameter(name = "iso_code") String code) {
      this.code = code;
    }
  }

  static final class Click {
    long user;
    Utf8 session = new Utf8();
    long at;
    Utf8 url = new Utf8();
    Utf8 ip = new Utf8();
    Utf8 country = new Utf8();
    BinaryDecoder decoder;

    void read(byte[] value, boolean enriched) throws IOException {
      decoder = DecoderFactory.get().binaryDecoder(value, 5, value.length - 5, decoder);
      user = decoder.readLong();
      session = decoder.readString(session);
      at = decoder.readLong();
      url = decoder.readString(url);
      ip = decoder.readString(ip);
      if (enriched) {
        country = decoder.readString(country);
      }
    }
  }

  private static final class Local {
    final Click click = new Click();
    final ByteArrayOutputStream out = new ByteArrayOutputStream(256);
    BinaryEncoder encoder;
  }

  private final Reader geo;
  private final ThreadLocal<Local> locals = ThreadLocal.withInitial(Local::new);

  Clicks(String database) throws IOException {
    geo = new Reader(new File(database), Reader.FileMode.MEMORY, new CHMCache());
  }

  byte[] enrich(byte[] value) {
    try {
      Local l = locals.get();
      l.click.read(value, false);
      Answer a = geo.get(InetAddress.getByName(l.click.ip.toString()), Answer.class);
      String country = a == null || a.country() == null || a.country().code() == null ? "ZZ" : a.country().code();
      l.out.reset();
      l.out.write(value, 0, 5);
      l.encoder = EncoderFactory.get().directBinaryEncoder(l.out, l.encoder);
      l.encoder.writeLong(l.click.user);
      l.encoder.writeString(l.click.session);
      l.encoder.writeLong(l.click.at);
      l.encoder.writeString(l.click.url);
      l.encoder.writeString(l.click.ip);
      l.encoder.writeString(country);
      l.encoder.flush();
      return l.out.toByteArray();
    } catch (IOException e) {
      throw new UncheckedIOException(Arrays.toString(value), e);
    }
  }
}
