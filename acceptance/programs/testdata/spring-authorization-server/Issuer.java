package keyway;

import com.nimbusds.jose.jwk.JWK;
import com.nimbusds.jose.jwk.JWKSet;
import com.nimbusds.jose.jwk.RSAKey;
import com.nimbusds.jose.jwk.source.JWKSource;
import com.nimbusds.jose.proc.SecurityContext;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.interfaces.RSAPublicKey;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.UUID;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.SpringBootConfiguration;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.context.annotation.Bean;
import org.springframework.core.annotation.Order;
import org.springframework.http.HttpMethod;
import org.springframework.security.config.Customizer;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.core.GrantedAuthority;
import org.springframework.security.core.userdetails.User;
import org.springframework.security.core.userdetails.UserDetails;
import org.springframework.security.core.userdetails.UserDetailsService;
import org.springframework.security.oauth2.core.AuthorizationGrantType;
import org.springframework.security.oauth2.core.ClientAuthenticationMethod;
import org.springframework.security.oauth2.server.authorization.OAuth2TokenType;
import org.springframework.security.oauth2.server.authorization.client.InMemoryRegisteredClientRepository;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClient;
import org.springframework.security.oauth2.server.authorization.client.RegisteredClientRepository;
import org.springframework.security.oauth2.server.authorization.settings.AuthorizationServerSettings;
import org.springframework.security.oauth2.server.authorization.token.JwtEncodingContext;
import org.springframework.security.oauth2.server.authorization.token.OAuth2TokenCustomizer;
import org.springframework.security.provisioning.InMemoryUserDetailsManager;
import org.springframework.security.web.SecurityFilterChain;
import org.springframework.security.web.authentication.LoginUrlAuthenticationEntryPoint;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RestController;

/**
 * An issuer made of Spring Authorization Server: two users with roles, a client for services and one for people, and
 * a key that changes with POST /rotate. Argument: the port.
 */
@SpringBootConfiguration(proxyBeanMethods = false)
@EnableAutoConfiguration
@RestController
public class Issuer {
  private static final List<String> SCOPES =
      List.of("agents:read", "agents:web-search-agent:read", "agents:web-search-agent:run", "sessions:read");

  private static String port;

  private final List<JWK> keys = new ArrayList<>();

  public static void main(String[] args) {
    port = args[0];
    SpringApplication app = new SpringApplication(Issuer.class);
    app.setDefaultProperties(Map.of("server.port", port, "server.address", "127.0.0.1"));
    app.run();
  }

  /** Adds a key. The newest key signs, and the old ones are still published. */
  @PostMapping("/rotate")
  public synchronized void rotate() throws Exception {
    KeyPairGenerator generator = KeyPairGenerator.getInstance("RSA");
    generator.initialize(2048);
    KeyPair pair = generator.generateKeyPair();
    String kid = UUID.randomUUID().toString();
    keys.add(0, new RSAKey.Builder((RSAPublicKey) pair.getPublic()).privateKey(pair.getPrivate()).keyID(kid).build());
  }

  @Bean
  JWKSource<SecurityContext> keySource() throws Exception {
    rotate();
    return (selector, context) -> {
      synchronized (this) {
        return selector.select(new JWKSet(keys));
      }
    };
  }

  /** Spring asks for the one key that signs, so the header names the newest. */
  @Bean
  OAuth2TokenCustomizer<JwtEncodingContext> claims() {
    return context -> {
      synchronized (this) {
        context.getJwsHeader().keyId(keys.get(0).getKeyID());
      }
      boolean access = context.getTokenType().equals(OAuth2TokenType.ACCESS_TOKEN);
      if (access && !context.getAuthorizationGrantType().equals(AuthorizationGrantType.CLIENT_CREDENTIALS)) {
        TreeSet<String> roles = new TreeSet<>();
        for (GrantedAuthority a : context.getPrincipal().getAuthorities()) {
          if (a.getAuthority().startsWith("ROLE_")) {
            roles.add(a.getAuthority().substring("ROLE_".length()));
          }
        }
        context.getClaims().claim("roles", roles);
      }
    };
  }

  @Bean
  AuthorizationServerSettings settings() {
    return AuthorizationServerSettings.builder().issuer("http://127.0.0.1:" + port).build();
  }

  @Bean
  RegisteredClientRepository clients() {
    RegisteredClient service = client("svc").authorizationGrantType(AuthorizationGrantType.CLIENT_CREDENTIALS).build();
    RegisteredClient people =
        client("web")
            .authorizationGrantType(AuthorizationGrantType.AUTHORIZATION_CODE)
            .redirectUri("http://127.0.0.1/callback")
            .scope("openid")
            .build();
    return new InMemoryRegisteredClientRepository(service, people);
  }

  private static RegisteredClient.Builder client(String id) {
    return RegisteredClient.withId(id)
        .clientId(id)
        .clientSecret("{noop}" + id + "-secret")
        .clientAuthenticationMethod(ClientAuthenticationMethod.CLIENT_SECRET_BASIC)
        .scopes(all -> all.addAll(SCOPES));
  }

  @Bean
  UserDetailsService users() {
    return new InMemoryUserDetailsManager(user("ann", "web-users", "staff"), user("bob", "finance"));
  }

  private static UserDetails user(String name, String... roles) {
    return User.withUsername(name).password("{noop}" + name + "-password").roles(roles).build();
  }

  @Bean
  @Order(1)
  SecurityFilterChain server(HttpSecurity http) throws Exception {
    http.oauth2AuthorizationServer(server -> server.oidc(Customizer.withDefaults()));
    http.securityMatcher("/oauth2/**", "/.well-known/**");
    http.authorizeHttpRequests(all -> all.anyRequest().authenticated());
    http.exceptionHandling(e -> e.authenticationEntryPoint(
        new LoginUrlAuthenticationEntryPoint("/login")));
    return http.build();
  }

  @Bean
  @Order(2)
  SecurityFilterChain pages(HttpSecurity http) throws Exception {
    http.authorizeHttpRequests(
        all -> all.requestMatchers(HttpMethod.POST, "/rotate").permitAll().anyRequest().authenticated());
    http.csrf(csrf -> csrf.ignoringRequestMatchers("/rotate"));
    http.formLogin(Customizer.withDefaults());
    return http.build();
  }
}
