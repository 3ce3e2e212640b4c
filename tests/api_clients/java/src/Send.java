import ch.qos.logback.classic.LoggerContext;
import ch.qos.logback.classic.joran.JoranConfigurator;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Sends records with loki4j: Send URL FIRST COUNT
 *
 * <p>As send.py does it: the message of a record is message(i), the second half waits for a line from standard input, and the end for its
 * end.
 */
public class Send {
    static final String LOGBACK = """
        <configuration>
          <appender name="LOKI" class="com.github.loki4j.logback.Loki4jAppender">
            <http>
              <url>URL/loki/api/v1/push</url>
              <maxRetries>100</maxRetries>
              <maxRetryBackoffMs>1000</maxRetryBackoffMs>
            </http>
            <batch>
              <maxItems>50</maxItems>
              <timeoutMs>200</timeoutMs>
            </batch>
            <labels>job = shop</labels>
            <message><pattern>%m%nopex</pattern></message>
          </appender>
          <root level="INFO"><appender-ref ref="LOKI"/></root>
        </configuration>
        """;

    static String message(int i) {
        return "record " + i + " \"quoted\" \\ é 日本\twith a tab\nand a second line";
    }

    public static void main(String[] args) throws Exception {
        int first = Integer.parseInt(args[1]);
        int count = Integer.parseInt(args[2]);
        var context = (LoggerContext) LoggerFactory.getILoggerFactory();
        context.reset();
        var configurator = new JoranConfigurator();
        configurator.setContext(context);
        var text = LOGBACK.replace("URL", args[0]);
        configurator.doConfigure(new ByteArrayInputStream(text.getBytes(StandardCharsets.UTF_8)));
        Logger logger = LoggerFactory.getLogger("shop");
        var stdin = new BufferedReader(new InputStreamReader(System.in));
        for (int i = first; i < first + count; i++) {
            if (i == first + count / 2) {
                stdin.readLine();
            }
            logger.info("{}", message(i));
        }
        while (stdin.readLine() != null) {}
        context.stop(); // sends what is left
        System.out.println(count + " records");
    }
}
