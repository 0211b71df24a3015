// SPDX-License-Identifier: Apache-2.0

import ee.ria.xroad.common.conf.InternalSSLKey;
import ee.ria.xroad.common.crypto.Signatures;
import ee.ria.xroad.common.crypto.identifier.DigestAlgorithm;
import ee.ria.xroad.common.crypto.identifier.Providers;
import ee.ria.xroad.common.crypto.identifier.SignAlgorithm;
import ee.ria.xroad.common.crypto.identifier.SignMechanism;
import ee.ria.xroad.common.identifier.ClientId;
import ee.ria.xroad.common.identifier.SecurityServerId;
import ee.ria.xroad.common.identifier.ServiceId;
import ee.ria.xroad.common.signature.SignatureData;
import ee.ria.xroad.common.signature.SigningRequest;
import ee.ria.xroad.common.util.CryptoUtils;
import ee.ria.xroad.common.util.JobManager;

import org.bouncycastle.cert.jcajce.JcaX509CertificateHolder;
import org.bouncycastle.cert.ocsp.CertificateID;
import org.bouncycastle.cert.ocsp.OCSPReqBuilder;
import org.bouncycastle.cert.ocsp.OCSPResp;
import org.bouncycastle.operator.jcajce.JcaDigestCalculatorProviderBuilder;
import org.niis.xroad.globalconf.GlobalConfProvider;
import org.niis.xroad.globalconf.impl.FileSystemGlobalConfSource;
import org.niis.xroad.globalconf.impl.GlobalConfImpl;
import org.niis.xroad.globalconf.impl.cert.CertChainFactory;
import org.niis.xroad.globalconf.impl.cert.CertHelper;
import org.niis.xroad.keyconf.KeyConfProvider;
import org.niis.xroad.keyconf.SigningInfo;
import org.niis.xroad.keyconf.dto.AuthKey;
import org.niis.xroad.proxy.core.opmonitoring.OpMonitoring;
import org.niis.xroad.proxy.core.clientproxy.AuthTrustVerifier;
import org.niis.xroad.proxy.core.clientproxy.ClientProxy;
import org.niis.xroad.proxy.core.conf.SigningCtxImpl;
import org.niis.xroad.proxy.core.messagelog.MessageLog;
import org.niis.xroad.proxy.core.serverproxy.ServerProxy;
import org.niis.xroad.proxy.core.signature.SignatureCtx;
import org.niis.xroad.proxy.core.signedmessage.SigningKey;
import org.niis.xroad.proxy.core.util.CertHashBasedOcspResponder;
import org.niis.xroad.proxy.core.util.CommonBeanProxy;
import org.niis.xroad.serverconf.IsAuthentication;
import org.niis.xroad.serverconf.ServerConfProvider;
import org.niis.xroad.serverconf.model.DescriptionType;

import java.io.IOException;
import java.lang.reflect.Proxy;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.PrivateKey;
import java.security.Signature;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/**
 * X-Road's client proxy and server proxy with their OCSP responder, fed from a
 * folder: anchor.xml, auth.der and sign.der with their keys in auth.key and
 * sign.key (PKCS #8). It ends when its standard input does.
 *
 * Arguments: folder, own address, instance, member class, member code, server
 * code, address of the information system.
 */
public final class Server {
    private static GlobalConfProvider conf;

    public static void main(String[] args) {
        try {
            run(args);
            System.exit(0);
        } catch (Throwable e) { // other threads would go on
            e.printStackTrace();
            System.exit(1);
        }
    }

    private static void run(String[] args) throws Exception {
        Path dir = Path.of(args[0]);
        String address = args[1];
        Path jetty = Files.writeString(dir.resolve("jetty.xml"), """
                <?xml version="1.0"?>
                <!DOCTYPE Configure PUBLIC "-//Jetty//Configure//EN" "http://www.eclipse.org/jetty/configure_10_0.dtd">
                <Configure class="org.eclipse.jetty.server.Server"/>
                """);
        Path globalConf = Files.createDirectories(dir.resolve("globalconf"));
        Path temp = Files.createDirectories(dir.resolve("temp"));
        Map.of("connector-host", address, "server-listen-address", address, "ocsp-responder-listen-address", address,
                "client-http-port", "8080", "client-https-port", "8443",
                "jetty-clientproxy-configuration-file", jetty, "jetty-serverproxy-configuration-file", jetty,
                "jetty-ocsp-responder-configuration-file", jetty, "configuration-anchor-file", dir.resolve("anchor.xml"),
                "xroad-tls-ciphers", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")
                .forEach((k, v) -> System.setProperty("xroad.proxy." + k, v.toString()));
        System.setProperty("xroad.common.configuration-path", globalConf.toString());
        System.setProperty("xroad.common.temp-files-path", temp + "/");
        System.setProperty("xroad.common.grpc-internal-tls-enabled", "false");
        Providers.init();
        org.apache.xml.security.Init.init();

        var client = Class.forName("org.niis.xroad.confclient.core.ConfigurationClient");
        client.getMethod("execute").invoke(client.getConstructor(String.class).newInstance(globalConf.toString()));
        conf = new GlobalConfImpl(new FileSystemGlobalConfSource(globalConf.toString()));

        String instance = args[2];
        var serverId = SecurityServerId.Conf.create(instance, args[3], args[4], args[5]);
        X509Certificate auth = certificate(dir.resolve("auth.der"));
        X509Certificate sign = certificate(dir.resolve("sign.der"));
        PrivateKey authKey = key(dir.resolve("auth.key"), auth);
        PrivateKey signKey = key(dir.resolve("sign.key"), sign);

        KeyConfProvider keys = new Keys(new AuthKey(conf.getCertChain(instance, auth), authKey));
        var ssl = new InternalSSLKey(authKey, new X509Certificate[] {auth});
        ServerConfProvider server = serverConf(serverId, args[6], ssl);
        var chains = new CertChainFactory(conf);
        var helper = new CertHelper(conf);
        var owner = ClientId.Conf.create(instance, args[3], args[4]);
        var beans = new CommonBeanProxy(conf, server, keys,
                c -> new SigningCtxImpl(conf, keys, owner, new Key(signKey), sign), chains, helper);
        OpMonitoring.init(server);
        MessageLog.init(new JobManager(), conf, server);
        new ServerProxy(beans).afterPropertiesSet();
        new ClientProxy(beans, conf, keys, server, new AuthTrustVerifier(keys, helper, chains)).afterPropertiesSet();
        new CertHashBasedOcspResponder(keys).afterPropertiesSet();
        System.out.println("\nready");
        while (System.in.read() >= 0) {
            continue;
        }
    }

    private static X509Certificate certificate(Path file) throws IOException {
        return CryptoUtils.readCertificate(Files.readAllBytes(file));
    }

    private static PrivateKey key(Path file, X509Certificate c) throws Exception {
        return KeyFactory.getInstance(c.getPublicKey().getAlgorithm()).generatePrivate(new PKCS8EncodedKeySpec(Files.readAllBytes(file)));
    }

    /** Lets every registered client call the services "persons" (REST) and "soap" (WSDL) of any. */
    private static ServerConfProvider serverConf(SecurityServerId.Conf id, String url, InternalSSLKey ssl) {
        return (ServerConfProvider) Proxy.newProxyInstance(Server.class.getClassLoader(), new Class<?>[] {ServerConfProvider.class},
                (proxy, method, a) -> switch (method.getName()) {
                    case "getIdentifier" -> id;
                    case "serviceExists" -> List.of("persons", "soap").contains(((ServiceId) a[0]).getServiceCode());
                    case "getServiceAddress" -> url + "/" + ((ServiceId) a[0]).getServiceCode();
                    case "getServiceTimeout" -> 60;
                    case "getDescriptionType" -> ((ServiceId) a[0]).getServiceCode().equals("soap") ? DescriptionType.WSDL : DescriptionType.REST;
                    case "getIsAuthentication" -> IsAuthentication.NOSSL;
                    case "getMemberStatus" -> "registered";
                    case "getSSLKey" -> ssl;
                    case "isQueryAllowed", "isAvailable" -> true;
                    case "isSslAuthentication" -> false;
                    case "getMaintenanceMode" -> new ServerConfProvider.MaintenanceMode(false, null);
                    case "hashCode" -> 1;
                    case "equals" -> proxy == a[0];
                    case "toString" -> "serverconf";
                    default -> List.class.isAssignableFrom(method.getReturnType()) ? List.of() : null;
                });
    }

    /** The keys, and OCSP responses from the responders of the global configuration. */
    private static final class Keys implements KeyConfProvider {
        private final AuthKey auth;
        private final Map<String, OCSPResp> responses = new ConcurrentHashMap<>();

        Keys(AuthKey auth) {
            this.auth = auth;
        }

        @Override
        public SigningInfo getSigningInfo(ClientId clientId) {
            throw new UnsupportedOperationException();
        }

        @Override
        public AuthKey getAuthKey() {
            return auth;
        }

        @Override
        public OCSPResp getOcspResponse(X509Certificate cert) throws IOException {
            try {
                if (!auth.certChain().getEndEntityCert().equals(cert) && conf.getServerId(cert) != null) {
                    return responses.get(CryptoUtils.calculateCertHexHash(cert)); // its owner has to show it
                }
                var issuer = conf.getCaCert(conf.getInstanceIdentifier(), cert);
                var digests = new JcaDigestCalculatorProviderBuilder().build();
                var request = new OCSPReqBuilder().addRequest(new CertificateID(digests.get(CertificateID.HASH_SHA1),
                        new JcaX509CertificateHolder(issuer), cert.getSerialNumber())).build();
                var url = conf.getOrderedOcspResponderAddresses(cert).get(0);
                var answer = HttpClient.newHttpClient().send(HttpRequest.newBuilder(URI.create(url))
                        .header("Content-Type", "application/ocsp-request")
                        .POST(HttpRequest.BodyPublishers.ofByteArray(request.getEncoded())).build(), HttpResponse.BodyHandlers.ofByteArray());
                return new OCSPResp(answer.body());
            } catch (IOException e) {
                throw e;
            } catch (Exception e) {
                throw new IOException(e);
            }
        }

        @Override
        public OCSPResp getOcspResponse(String hash) throws IOException {
            return getOcspResponse(auth.certChain().getEndEntityCert());
        }

        @Override
        public List<OCSPResp> getOcspResponses(List<X509Certificate> certs) throws IOException {
            var all = new ArrayList<OCSPResp>();
            for (var c : certs) {
                all.add(getOcspResponse(c));
            }
            return all;
        }

        @Override
        public void setOcspResponses(List<X509Certificate> certs, List<OCSPResp> got) throws IOException {
            for (int i = 0; i < certs.size(); i++) {
                try {
                    responses.put(CryptoUtils.calculateCertHexHash(certs.get(i)), got.get(i));
                } catch (java.security.cert.CertificateEncodingException e) {
                    throw new IOException(e);
                }
            }
        }
    }

    /** Signs as the signer does with keys in software. */
    private record Key(PrivateKey key) implements SigningKey {
        @Override
        public SignatureData calculateSignature(SigningRequest request, DigestAlgorithm digest) {
            try {
                var algorithm = SignAlgorithm.ofDigestAndMechanism(digest,
                        key.getAlgorithm().equals("RSA") ? SignMechanism.CKM_RSA_PKCS : SignMechanism.CKM_ECDSA);
                var ctx = new SignatureCtx(algorithm);
                ctx.add(request);
                var s = Signature.getInstance(algorithm.name(), "BC");
                s.initSign(key);
                s.update(ctx.getDataToBeSigned());
                return ctx.createSignatureData(ctx.createSignatureXml(Signatures.useRawFormat(algorithm, s.sign())), 0);
            } catch (Exception e) {
                throw new IllegalStateException(e);
            }
        }
    }
}
